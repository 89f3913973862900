//! `botmesh scan`, and the hook of git that runs it.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::{PYTHON, both, botmesh, ok, run};

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

/// What `scan` says in JSON, and its exit code.
fn scanned(arguments: &[&str]) -> (Value, Option<i32>) {
    let out = run(botmesh().args(["scan", "-o", "json"]).args(arguments));
    let document = serde_json::from_slice(&out.stdout).unwrap_or_else(|error| panic!("{error}: {}", both(&out)));
    (document, out.status.code())
}

/// Where there are keys, as `FILE:LINE`.
fn places(document: &Value) -> Vec<String> {
    let items = document["items"].as_array().unwrap();
    let mut places: Vec<String> = items
        .iter()
        .map(|item| format!("{}:{}", item["file"].as_str().unwrap(), item["line"]))
        .collect();
    places.sort();
    places
}

fn script(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support").join(name)
}

#[test]
fn a_key_in_an_image_is_named_by_layer_and_file_whoever_made_it() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().to_str().unwrap();
    let made: Value =
        serde_json::from_str(&ok(Command::new(PYTHON).arg(script("images.py")).args([at, &key()]))).unwrap();
    for packed in ["plain", "gzip", "zstd"] {
        let digest = |what: &str| made[packed][what].as_str().unwrap().to_owned();
        let (layer, settings) = (digest("layer"), digest("settings"));
        for (image, to_blobs) in [(format!("{at}/{packed}.tar"), "!"), (format!("{at}/{packed}"), "/")] {
            let (found, code) = scanned(&[&image]);
            let mut wanted = vec![
                format!("{image}{to_blobs}blobs/sha256/{layer}!app/.env:3"),
                format!("{image}{to_blobs}blobs/sha256/{settings}:1"),
            ];
            wanted.sort();
            assert_eq!((places(&found), code), (wanted, Some(1)), "{found}");
            let layers: Vec<&Value> = found["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|item| &item["layer"])
                .collect();
            assert!(layers.contains(&&Value::from(format!("sha256:{layer}"))), "{found}");
            assert_eq!(found["missed"], serde_json::json!([]), "{found}");
        }
        let (clean, code) = scanned(&[
            "--strict",
            &format!("{at}/clean-{packed}.tar"),
            &format!("{at}/clean-{packed}"),
        ]);
        assert_eq!((places(&clean).len(), code), (0, Some(0)), "{clean}");
        assert!(clean["files"].as_u64() > Some(14), "{clean}");
    }
    let piped = Stdio::from(std::fs::File::open(folder.path().join("gzip.tar")).unwrap());
    let told = both(&botmesh().args(["scan", "-"]).stdin(piped).output().unwrap());
    assert!(told.contains("standard input!blobs/sha256/"), "{told}");
}

#[test]
fn archives_of_random_files_have_exactly_the_keys_that_were_put_there() {
    let folder = tempfile::tempdir().unwrap();
    let seed = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_nanos()
        .to_string();
    println!("seed {seed}");
    let at = folder.path().to_str().unwrap();
    let wanted = ok(Command::new(PYTHON).arg(script("archives.py")).args([&seed, at]));
    let wanted: Vec<String> = serde_json::from_str(&wanted).unwrap();
    let (found, _) = scanned(&[at]);
    assert_eq!(places(&found), wanted, "seed {seed}");
    assert_eq!(found["missed"], serde_json::json!([]), "seed {seed}");
}

#[test]
fn what_was_not_wholly_looked_at_is_told_and_fails_where_that_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("log\u{1b}.xz");
    std::fs::write(&file, b"\xfd7zXZ\0 and so on").unwrap();
    let file = file.to_str().unwrap();
    let scan = |arguments: &[&str]| run(botmesh().arg("scan").args(arguments));
    let told = scan(&[file]);
    let text = both(&told);
    assert_eq!(told.status.code(), Some(0), "{text}");
    assert!(
        text.contains("not wholly looked at: ") && text.contains("log\\u{1b}.xz: compressed (xz)"),
        "{text}"
    );
    assert_eq!(scan(&["--strict", file]).status.code(), Some(1));
    let (document, code) = scanned(&[file]);
    assert_eq!((document["missed"][0]["file"].as_str(), code), (Some(file), Some(0)));
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
