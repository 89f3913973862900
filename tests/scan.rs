//! `botmesh scan`, and the hook of git that runs it.

use std::path::Path;
use std::process::{Command, Output};

use crate::support::{both, botmesh, ok, run};

/// Put together here, so that nobody who looks for keys finds one in this file.
fn key() -> String {
    ["ghp_", "0123456789abcdefghijABCDEFGHIJ012345"].concat()
}

#[test]
fn a_key_in_a_file_is_named_by_place_and_kind_and_never_shown_whole() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("clean"), "nothing here\n").unwrap();
    let scan = |path: &Path| run(botmesh().arg("scan").arg(path));
    let clean = scan(folder.path());
    assert_eq!(clean.status.code(), Some(0), "{}", both(&clean));
    std::fs::write(folder.path().join("env"), format!("A=1\nTOKEN={}\n", key())).unwrap();
    let found = scan(folder.path());
    let told = both(&found);
    assert_eq!(found.status.code(), Some(1), "{told}");
    assert!(
        told.contains("/env:2") && told.contains("GitHub token") && told.contains("ghp_0123"),
        "{told}"
    );
    assert!(!told.contains(&key()), "{told}");
    let gone = scan(&folder.path().join("gone"));
    assert!(
        !gone.status.success() && both(&gone).contains("gone"),
        "{}",
        both(&gone)
    );
}

fn git(folder: &Path, words: &[&str]) -> Output {
    let program = Path::new(botmesh().get_program()).parent().unwrap().to_owned();
    let path = std::env::var("PATH").unwrap();
    let mut command = Command::new("git");
    command
        .current_dir(folder)
        .args(["-c", "user.name=a", "-c", "user.email=a@acme.internal"])
        .args(words);
    run(command
        .env("PATH", format!("{}:{path}", program.display()))
        .env("HOME", folder))
}

#[test]
fn the_hook_lets_no_commit_pass_in_which_there_is_a_key() {
    let folder = tempfile::tempdir().unwrap();
    let repository = folder.path().join("repository");
    ok(Command::new("git").args(["init", "-q"]).arg(&repository));
    let hook = repository.join(".git/hooks/pre-commit");
    std::fs::copy(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/git/pre-commit"),
        hook,
    )
    .unwrap();
    let file = repository.join("settings");
    for (text, passes) in [
        ("A=1\n".to_owned(), true),
        (format!("A=1\nB={}\n", key()), false),
        ("A=2\n".to_owned(), true),
    ] {
        std::fs::write(&file, &text).unwrap();
        assert!(git(&repository, &["add", "settings"]).status.success());
        let commit = git(&repository, &["commit", "-q", "-m", "a change"]);
        assert_eq!(commit.status.success(), passes, "{text}: {}", both(&commit));
    }
    // One that is there already may be taken out.
    std::fs::write(&file, key()).unwrap();
    assert!(
        git(&repository, &["commit", "-q", "-a", "--no-verify", "-m", "a mistake"])
            .status
            .success()
    );
    std::fs::write(&file, "A=3\n").unwrap();
    let taken = git(&repository, &["commit", "-q", "-a", "-m", "take it out"]);
    assert!(taken.status.success(), "{}", both(&taken));
}
