//! Header lines for the collector, which hold what it lets us in by.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use zeroize::Zeroizing;

use crate::exit::Failure;

/// The largest file of header lines.
const BYTES_MAX: u64 = 16 * 1024;

/// The most lines.
const LINES_MAX: usize = 16;

/// The shortest part of a value that is looked for in what a server says.
const PART_MIN: usize = 6;

/// Where the lines come from.
#[derive(Debug)]
pub(super) enum Source {
    /// There are none.
    None,
    /// A file, which is read for each request: a token in it may be replaced.
    File(PathBuf),
    /// Lines that were read at the start.
    Read(Headers),
}

/// The lines.
#[derive(Clone, Default)]
pub(super) struct Headers(Vec<(HeaderName, Arc<Secret>)>);

/// A value, which is wiped at the end.
struct Secret(Zeroizing<Vec<u8>>);

/// The same, lent to a request.
struct Lent(Arc<Secret>);

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.0.0
    }
}

impl std::fmt::Debug for Headers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

impl Source {
    /// Reads the lines once, so that what is wrong with them is known at the start.
    pub(super) fn open(file: Option<PathBuf>, fd: Option<u32>) -> Result<Self> {
        Ok(match (file, fd) {
            (Some(file), _) => {
                let source = Self::File(file);
                source.read()?;
                source
            }
            (None, Some(fd)) => {
                let named = format!("descriptor {fd}");
                let file = File::open(format!("/dev/fd/{fd}"));
                let file = file.map_err(|error| Failure::usage(format!("open {named}: {error}")))?;
                Self::Read(Headers::read(file, &named)?)
            }
            (None, None) => Self::None,
        })
    }

    pub(super) const fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// Gives the lines as they are now.
    pub(super) fn read(&self) -> Result<Headers> {
        match self {
            Self::None => Ok(Headers::default()),
            Self::Read(headers) => Ok(headers.clone()),
            Self::File(path) => {
                let named = path.display().to_string();
                let unreadable = |error| Failure::invalid_file(format!("cannot read {named}: {error}"));
                let file = File::open(path).map_err(unreadable)?;
                // The group may: a service manager hands files over in that way.
                if file.metadata().map_err(unreadable)?.permissions().mode() & 0o007 != 0 {
                    let message = format!("{named} may be read or written by everybody on this machine");
                    return Err(Failure::invalid_file(message).hint(format!("chmod 600 {named}")).into());
                }
                Headers::read(file, &named)
            }
        }
    }
}

impl Headers {
    fn read(file: File, named: &str) -> Result<Self> {
        // Room for all of it, so that no copy of a part is left behind by growing.
        let mut text = Zeroizing::new(Vec::with_capacity(usize::try_from(BYTES_MAX)? + 1));
        file.take(BYTES_MAX + 1)
            .read_to_end(&mut text)
            .with_context(|| format!("read {named}"))?;
        if text.len() as u64 > BYTES_MAX {
            return Err(Failure::invalid_file(format!("{named} is larger than {BYTES_MAX} bytes")).into());
        }
        Self::parse(&text, named)
    }

    /// Reads `Name: value` lines. An error names the line and never what is on it.
    fn parse(text: &[u8], named: &str) -> Result<Self> {
        let mut headers = Self::default();
        for (number, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let wrong = |what: &str| Failure::invalid_file(format!("{named}:{}: {what}", number.saturating_add(1)));
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let mut parts = line.splitn(2, |byte| *byte == b':');
            let (Some(name), Some(value)) = (parts.next(), parts.next()) else {
                return Err(wrong("this is no header: write Name: value").into());
            };
            let name = HeaderName::from_bytes(name).map_err(|_invalid| wrong("this is no name of a header"))?;
            if is_ours(&name) {
                return Err(wrong("this header is set by the export itself").into());
            }
            if headers.0.len() == LINES_MAX {
                return Err(wrong("there are more than 16 headers").into());
            }
            let value = Secret(Zeroizing::new(value.trim_ascii().to_vec()));
            let checked = HeaderValue::from_bytes(&value.0);
            checked.map_err(|_invalid| wrong("this is no value of a header"))?;
            headers.0.push((name, Arc::new(value)));
        }
        Ok(headers)
    }

    /// The lines for a request, whose values are not copied.
    pub(super) fn lines(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        self.0.iter().filter_map(|(name, value)| {
            let bytes = Bytes::from_owner(Lent(Arc::clone(value)));
            let mut value = HeaderValue::from_maybe_shared(bytes).ok()?;
            value.set_sensitive(true);
            Some((name.clone(), value))
        })
    }

    /// Gives a text back if no value, nor a word of one, is in it.
    pub(super) fn masked(&self, text: String) -> String {
        let words = self
            .0
            .iter()
            .flat_map(|(_, value)| value.0.split(|byte| byte.is_ascii_whitespace()));
        let holds =
            |word: &[u8]| word.len() >= PART_MIN && text.as_bytes().windows(word.len()).any(|part| part == word);
        if words.into_iter().any(holds) {
            return "(what it said held what is secret)".to_owned();
        }
        text
    }
}

/// Says whether a header is part of how requests are framed and written.
fn is_ours(name: &HeaderName) -> bool {
    [
        header::HOST,
        header::CONNECTION,
        header::CONTENT_ENCODING,
        header::CONTENT_LENGTH,
        header::CONTENT_TYPE,
        header::EXPECT,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ]
    .contains(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::{Exit, code_of};

    fn parse(text: &str) -> Result<Headers> {
        Headers::parse(text.as_bytes(), "the file")
    }

    #[test]
    fn lines_are_read_and_their_values_never_shown() {
        let headers = parse("# of the vendor\nAuthorization: Bearer Hunter2-token\n\nX-Scope-OrgID:  7 \r\n").unwrap();
        let lines: Vec<_> = headers.lines().collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(
            (lines[0].0.as_str(), lines[0].1.as_bytes()),
            ("authorization", &b"Bearer Hunter2-token"[..])
        );
        assert_eq!(
            (lines[1].0.as_str(), lines[1].1.as_bytes()),
            ("x-scope-orgid", &b"7"[..])
        );
        let shown = format!("{headers:?} {:?}", lines[0].1);
        assert!(!shown.contains("Hunter2"), "{shown}");
    }

    #[test]
    fn what_is_wrong_is_named_by_its_line_and_not_repeated() {
        for text in [
            "\nHunter2",
            "\nHunter2 x: y",
            "\nX-Key: Hunter2\u{1}",
            "\nHost: Hunter2",
            "\nContent-Length: Hunter2",
            "\ntransfer-encoding: Hunter2",
        ] {
            let error = parse(text).unwrap_err();
            let told = format!("{error:#}");
            assert_eq!(code_of(&error), Exit::InvalidFile, "{text}");
            assert!(told.starts_with("the file:2: ") && !told.contains("Hunter2"), "{told}");
        }
        assert!(parse(&"X-A: b\n".repeat(16)).is_ok());
        assert!(parse(&"X-A: b\n".repeat(17)).is_err());
    }

    #[test]
    fn what_a_server_says_is_not_passed_on_where_it_repeats_a_value() {
        let headers = parse("Authorization: Bearer Hunter2-token\nX-Org: 7").unwrap();
        assert_eq!(headers.masked("unknown tenant 7".to_owned()), "unknown tenant 7");
        for said in ["no such token: Hunter2-token", "Bearer Hunter2-token is none"] {
            assert!(!headers.masked(said.to_owned()).contains("Hunter2"), "{said}");
        }
    }

    #[test]
    fn a_file_that_everybody_may_read_is_refused_and_one_that_is_replaced_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("headers");
        std::fs::write(&file, "X-A: one").unwrap();
        let mode = |mode| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        for open in [0o644, 0o602] {
            mode(open);
            let error = Source::open(Some(file.clone()), None).unwrap_err();
            assert_eq!(code_of(&error), Exit::InvalidFile, "{open:o}");
        }
        mode(0o640);
        let source = Source::open(Some(file.clone()), None).unwrap();
        std::fs::write(&file, "X-A: two").unwrap();
        let read = source.read().unwrap();
        assert_eq!(read.lines().next().unwrap().1, "two");
        std::fs::write(&file, "x".repeat(17 * 1024)).unwrap();
        assert!(source.read().is_err());
    }
}
