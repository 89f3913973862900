//! Secrets that the suite plants, and the search for them in all that botmesh puts out while it runs.
//!
//! Bots send them in headers, bodies and values of queries, callees answer with them, and operators put them as credentials. Whatever a
//! process of botmesh writes for people or machines to read (logs, ledgers, metrics, what commands print) is searched for all of them, in
//! four forms, by `grep`, which is none of ours. `BOTMESH_SEARCHED=FILE` gets a line for each search: how many bytes it went through.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;

/// What a bot sends as a header, as a body and as a value in its query.
pub(crate) const HEADER: &str = "planted-header/Qv7mT2xR9s+Kd4Lw8";
pub(crate) const BODY: &str = "planted-body/Zc5nB8uYf3+Hj6Pa1";
pub(crate) const QUERY: &str = "planted-query-We4kN0gMx7-Tb2Vs9";

/// What a callee answers as a header and in its body.
pub(crate) const ANSWER: &str = "planted-answer/Lr3dG6hJq8+Xy1Uo5";

/// A shorter one would be found where nobody wrote it.
const BYTES_MIN: usize = 16;

static PUT: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Has everything be searched for this value, line by line, from now on.
pub(crate) fn plant(value: &str) {
    let mut put = PUT.lock().unwrap_or_else(PoisonError::into_inner);
    let lines = value.lines().map(str::trim);
    put.extend(
        lines
            .filter(|line| line.len() >= BYTES_MIN && !line.starts_with("-----"))
            .map(ToOwned::to_owned),
    );
}

/// A secret as it is, in hexadecimal, percent-encoded, and in Base64 without its end, which depends on what stands behind.
pub(crate) fn forms(secret: &str) -> [String; 4] {
    let raw = secret.as_bytes();
    let hex = raw.iter().map(|byte| format!("{byte:02x}")).collect();
    let percent = raw
        .iter()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(*byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect();
    let mut base64 = base64::engine::general_purpose::STANDARD_NO_PAD.encode(raw);
    base64.truncate(base64.len() - 2);
    [secret.to_owned(), hex, percent, base64]
}

fn patterns() -> String {
    let put = PUT.lock().unwrap_or_else(PoisonError::into_inner);
    let all = [HEADER, BODY, QUERY, ANSWER]
        .into_iter()
        .chain(put.iter().map(String::as_str));
    let forms: BTreeSet<String> = all.flat_map(forms).collect();
    forms.into_iter().map(|form| form + "\n").collect()
}

/// Searches files; gives what was found, with the file.
fn search(files: &[PathBuf]) -> String {
    let mut grep = Command::new("grep")
        .args([
            "--text",
            "--with-filename",
            "--only-matching",
            "--fixed-strings",
            "--file=-",
            "--",
        ])
        .args(files)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("grep runs");
    grep.stdin.take().unwrap().write_all(patterns().as_bytes()).unwrap();
    let out = grep.wait_with_output().unwrap();
    // 1 is nothing found; a file that is gone by now is 2.
    String::from_utf8_lossy(&out.stdout).into_owned()
}

fn searched(files: &[PathBuf]) {
    let Some(to) = std::env::var_os("BOTMESH_SEARCHED") else {
        return;
    };
    let bytes: u64 = files
        .iter()
        .map(|file| fs::metadata(file).map_or(0, |about| about.len()))
        .sum();
    let mut to = fs::OpenOptions::new().create(true).append(true).open(to).unwrap();
    to.write_all(format!("{bytes}\n").as_bytes()).unwrap();
}

/// Asserts that none of the secrets is in what a command printed, or a listener said.
pub(crate) fn none_in(what: &str, output: &[&[u8]]) {
    let found = found_in(output);
    assert!(found.is_empty(), "a planted secret came out of {what}:\n{found}");
}

fn found_in(output: &[&[u8]]) -> String {
    if output.iter().all(|bytes| bytes.is_empty()) {
        return String::new();
    }
    let mut file = tempfile::NamedTempFile::new().unwrap();
    for bytes in output {
        file.write_all(bytes).unwrap();
        file.write_all(b"\n").unwrap();
    }
    let file = [file.path().to_owned()];
    let found = search(&file);
    searched(&file);
    found
}

/// Asserts that none is in the logs and ledgers of a mesh that is in this folder.
pub(crate) fn none_under(folder: &Path) {
    let found = found_under(folder);
    assert!(found.is_empty(), "a planted secret was written:\n{found}");
}

fn found_under(folder: &Path) -> String {
    let mut files = Vec::new();
    written(folder, false, &mut files);
    if files.is_empty() {
        return String::new();
    }
    let found = search(&files);
    searched(&files);
    found
}

/// Files of a folder that botmesh writes for others to read: logs, and all that is in a ledger's folder. Not what bots say.
fn written(folder: &Path, of_ledger: bool, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        let Ok(kind) = entry.file_type() else { continue };
        let log = name.ends_with(".log") && !name.starts_with("callee-");
        if kind.is_dir() {
            written(&path, of_ledger || name.starts_with("ledger"), files);
        } else if kind.is_file() && (log || of_ledger) {
            files.push(path);
        }
    }
}

#[test]
fn a_planted_secret_is_found_in_each_form_in_logs_and_ledgers_and_nowhere_else() {
    let folder = tempfile::tempdir().unwrap();
    plant("one that an operator put/+");
    for (number, secret) in [HEADER, BODY, QUERY, ANSWER, "one that an operator put/+"]
        .into_iter()
        .enumerate()
    {
        for (form, text) in forms(secret).into_iter().enumerate() {
            let ledger = folder.path().join(format!("{number}-{form}/ledger-old/segments"));
            fs::create_dir_all(&ledger).unwrap();
            let of_one = ledger.parent().unwrap().parent().unwrap();
            fs::write(of_one.join("callee-0.log"), &text).unwrap();
            fs::write(of_one.join("mesh.yaml"), &text).unwrap();
            assert_eq!(found_under(of_one), "");
            for place in [ledger.join("0"), of_one.join("proxy.log")] {
                fs::write(&place, format!("before {text} behind")).unwrap();
                let found = found_under(of_one);
                let line = format!("{}:{text}\n", place.display());
                assert_eq!(found, line, "{secret} as {text}");
                fs::remove_file(&place).unwrap();
            }
            assert_ne!(found_in(&[b"fine", text.as_bytes()]), "", "{secret} as {text}");
        }
    }
    assert_eq!(found_in(&[b"fine", b""]), "");
}
