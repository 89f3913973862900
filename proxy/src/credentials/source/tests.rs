use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use policy::CredentialName;

use super::*;

fn name(text: &str) -> CredentialName {
    CredentialName::parse(text).unwrap()
}

async fn read(source: Source, sealer: &Sealer) -> Result<String, String> {
    let environment = Environment(|name| (name == "SET").then(|| "sk-set-0123456789".into()));
    let read = source.read(Shape::Line, sealer, environment, &Vaults::default()).await;
    let text = |secret: Secret| String::from_utf8(secret.bytes().to_vec()).unwrap();
    read.map(text).map_err(|error| error.to_string())
}

fn command(words: &[&str]) -> Source {
    Source::Command(words.iter().map(|word| (*word).to_owned()).collect())
}

#[tokio::test]
async fn what_was_put_is_read_again_and_is_nowhere_in_the_clear() {
    let folder = tempfile::tempdir().unwrap();
    let sealer = Sealer::new(folder.path());
    let secret = Arc::new(Secret::new(b"sk-ant-0123456789".to_vec()).unwrap());
    sealer.put(&name("anthropic"), &secret).await.unwrap();
    let file = sealer.file(&name("anthropic"));
    assert_eq!(
        read(Source::File(file.clone()), &sealer).await.unwrap(),
        "sk-ant-0123456789"
    );
    let sealed = std::fs::read(&file).unwrap();
    assert!(memchr::memmem::find(&sealed, b"sk-ant-0123456789").is_none());
    for path in [file, folder.path().join("credentials/host.key")] {
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let mode = std::fs::metadata(folder.path().join("credentials"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
    // Another host cannot read it.
    let elsewhere = tempfile::tempdir().unwrap();
    let other = Sealer::new(elsewhere.path());
    let path = sealer.file(&name("anthropic"));
    let error = read(Source::File(path), &other).await.unwrap_err();
    assert!(error.contains("is not encrypted to the key of this host"), "{error}");
    assert_ne!(sealer.recipient().unwrap(), other.recipient().unwrap());
    assert_eq!(sealer.recipient().unwrap(), sealer.recipient().unwrap());
    assert!(sealer.recipient().unwrap().starts_with("age1"));
}

#[tokio::test]
async fn a_file_in_the_clear_is_refused_and_a_changed_one_too() {
    let folder = tempfile::tempdir().unwrap();
    let sealer = Sealer::new(folder.path());
    let path = folder.path().join("plain");
    std::fs::write(&path, "sk-ant-0123456789").unwrap();
    let error = read(Source::File(path), &sealer).await.unwrap_err();
    assert!(
        error.contains("is not encrypted: write it by `botmesh secret put"),
        "{error}"
    );
    let secret = Arc::new(Secret::new(b"sk-ant-0123456789".to_vec()).unwrap());
    sealer.put(&name("a"), &secret).await.unwrap();
    let file = sealer.file(&name("a"));
    let mut sealed = std::fs::read(&file).unwrap();
    *sealed.last_mut().unwrap() ^= 1;
    std::fs::write(&file, sealed).unwrap();
    assert!(read(Source::File(file), &sealer).await.is_err());
    let gone = read(Source::File(folder.path().join("gone")), &sealer)
        .await
        .unwrap_err();
    assert!(gone.starts_with("read ") && gone.ends_with("/gone"), "{gone}");
}

#[tokio::test]
async fn a_key_that_is_damaged_is_told_and_never_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let sealer = Sealer::new(folder.path());
    sealer.recipient().unwrap();
    let key = folder.path().join("credentials/host.key");
    std::fs::write(&key, "AGE-SECRET-KEY-1NONSENSE").unwrap();
    let error = sealer.recipient().unwrap_err().to_string();
    assert!(error.contains("holds no key") && !error.contains("NONSENSE"), "{error}");
    assert_eq!(std::fs::read_to_string(&key).unwrap(), "AGE-SECRET-KEY-1NONSENSE");
}

#[tokio::test]
async fn a_program_says_the_value_and_gets_nothing_of_the_proxys() {
    let folder = tempfile::tempdir().unwrap();
    let sealer = Sealer::new(folder.path());
    let said = read(command(&["/bin/echo", "sk-ant-0123456789"]), &sealer).await;
    assert_eq!(said.unwrap(), "sk-ant-0123456789");
    let said = read(command(&["/bin/sh", "-c", "env | sort | tr '\\n' ' '; cat"]), &sealer)
        .await
        .unwrap();
    let names: Vec<&str> = said.split(' ').filter_map(|pair| pair.split('=').next()).collect();
    assert!(
        names
            .iter()
            .all(|name| ["", "HOME", "PATH", "PWD", "OLDPWD", "SHLVL", "_"].contains(name)),
        "{said}"
    );
    for (words, problem) in [
        (
            &["/bin/sh", "-c", "echo sk-secret-value; exit 3"][..],
            "failed: exit status: 3",
        ),
        (
            &["/nowhere/at-all"],
            "did not start: No such file or directory (os error 2)",
        ),
    ] {
        let error = read(command(words), &sealer).await.unwrap_err();
        assert!(error.ends_with(problem) && !error.contains("sk-secret"), "{error}");
    }
    let long = command(&["/bin/sh", "-c", "head -c 100000 /dev/zero | tr '\\0' a"]);
    let error = read(long, &sealer).await.unwrap_err();
    assert_eq!(error, "the value is longer than 16384 bytes");
}

#[tokio::test(start_paused = true)]
async fn a_program_that_does_not_end_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let sealer = Sealer::new(folder.path());
    let error = read(command(&["/bin/sleep", "1000"]), &sealer).await.unwrap_err();
    assert_eq!(error, "it was not read within 10s");
}

#[tokio::test]
async fn what_is_not_there_is_told_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let sealer = Sealer::new(folder.path());
    let error = read(Source::Env("BOTMESH_NO_SUCH_VARIABLE".to_owned()), &sealer)
        .await
        .unwrap_err();
    assert_eq!(
        error,
        "the proxy's environment has no variable BOTMESH_NO_SUCH_VARIABLE"
    );
    assert_eq!(
        read(Source::Env("SET".to_owned()), &sealer).await.unwrap(),
        "sk-set-0123456789"
    );
    let error = read(Source::Systemd("a".to_owned()), &sealer).await.unwrap_err();
    assert!(error.contains("no $CREDENTIALS_DIRECTORY"), "{error}");
}
