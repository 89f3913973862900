//! Addresses that are secrets, such as a webhook's: the mesh file says scheme, host and port, and what follows them is the key.

use std::borrow::Cow;

use policy::{CanonicalPath, Outside};
use thiserror::Error;
use zeroize::Zeroizing;

use super::percent::{self, Plus};
use super::secret::SECRET_BYTES_MIN;

/// The longest address, in bytes: the longest known ones have a fifth of that.
const URL_BYTES_MAX: usize = 2048;

/// Segments and parameters of fewer bytes are words (`services`, `IncomingWebhook`, `2016-06-01`), and are found by chance.
const PART_BYTES_MIN: usize = 16;

/// How the address of a webhook begins.
const HTTPS: &[u8] = b"https://";

/// Why a value is not the address that it should be. No error has anything of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NoHook {
    /// It leads to somebody else.
    #[error("it begins with another scheme, host or port than `url` of the credential in the mesh file")]
    Elsewhere,
    /// It has a user, whom nobody would be told of.
    #[error("it has a user before its host")]
    User,
    /// There is no secret in it.
    #[error("less follows its host than a secret has")]
    Short,
    /// It is too long.
    #[error("it is longer than {URL_BYTES_MAX} bytes")]
    Long,
    /// Not everybody would read it alike.
    #[error("its path or its query can be read in more than one way, or has a fragment")]
    Readings,
}

/// Gives path and query of the address, where it leads to this destination and nowhere else.
pub(super) fn target<'v>(value: &'v [u8], to: &Outside) -> Result<&'v [u8], NoHook> {
    if value.len() > URL_BYTES_MAX {
        return Err(NoHook::Long);
    }
    let rest = value.strip_prefix(HTTPS).ok_or(NoHook::Elsewhere)?;
    // Whatever some reader might end the host by.
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#' | b'\\'));
    let (authority, target) = rest.split_at_checked(end.unwrap_or(rest.len())).unwrap_or_default();
    if authority.contains(&b'@') {
        return Err(NoHook::User);
    }
    let written = to.to_string();
    let plain = written.as_bytes().strip_prefix(HTTPS).ok_or(NoHook::Elsewhere)?;
    // Some services write the port of the scheme.
    let with_port = format!("{}:{}", to.host(), to.port());
    if authority != plain && authority != with_port.as_bytes() {
        return Err(NoHook::Elsewhere);
    }
    if target.len() <= SECRET_BYTES_MIN {
        return Err(NoHook::Short);
    }
    let mut halves = target.splitn(2, |byte| *byte == b'?');
    let (path, query) = (halves.next().unwrap_or_default(), halves.next());
    let plain = |byte: &u8| (0x21..0x7f).contains(byte) && !matches!(byte, b'#' | b'"' | b'<' | b'>');
    if CanonicalPath::parse(path).is_err() || query.is_some_and(|query| !query.iter().all(plain)) {
        return Err(NoHook::Readings);
    }
    Ok(target)
}

/// Gives the parts of an address that nobody but the service may read: all that follows its host, the path by itself, and each
/// segment and parameter that is long enough to be a key, as they are and decoded. Nothing of what is no address.
pub(super) fn parts(value: &[u8]) -> Vec<Zeroizing<Vec<u8>>> {
    let Some(rest) = value.strip_prefix(HTTPS) else {
        return Vec::new();
    };
    let Some(begin) = rest.iter().position(|byte| matches!(byte, b'/' | b'?')) else {
        return Vec::new();
    };
    // Without the slash before it: some write it so.
    let target = rest.get(begin + 1..).unwrap_or_default();
    let mut halves = target.splitn(2, |byte| *byte == b'?');
    let (path, query) = (halves.next().unwrap_or_default(), halves.next().unwrap_or_default());
    let parameters = query.split(|byte| *byte == b'&').map(|parameter| {
        let name = parameter.iter().position(|byte| *byte == b'=');
        parameter.get(name.map_or(0, |at| at + 1)..).unwrap_or_default()
    });
    let long = path.split(|byte| *byte == b'/').chain(parameters).chain([path]);
    let long = long.filter(|part| part.len() >= PART_BYTES_MIN);
    let mut parts = Vec::new();
    for part in long.chain([target].into_iter().filter(|target| target.len() >= SECRET_BYTES_MIN)) {
        parts.push(Zeroizing::new(part.to_vec()));
        if let Cow::Owned(decoded) = decoded(part) {
            parts.push(Zeroizing::new(decoded));
        }
    }
    parts
}

fn decoded(part: &[u8]) -> Cow<'_, [u8]> {
    if part.contains(&b'%') {
        Cow::Owned(percent::decode(part, Plus::Plus))
    } else {
        Cow::Borrowed(part)
    }
}

#[cfg(test)]
mod tests {
    use http::Uri;
    use proptest::prelude::*;

    use super::*;

    const SLACK: &str = "https://hooks.slack.com/services/T00000000/B00000000/abcdefghijklmnopqrstuvwx";

    fn read(value: &str, to: &str) -> Result<String, NoHook> {
        let to = Outside::parse(to).unwrap();
        target(value.as_bytes(), &to).map(|target| String::from_utf8(target.to_vec()).unwrap())
    }

    proptest! {
        /// What is taken is read alike by another reader: the same host, the same port, and path and query whole.
        #[test]
        fn whoever_reads_an_address_that_is_taken_goes_to_the_destination(
            value in r"https://(hooks\.example\.com|[a-z@:.\\/?#%0-9]{0,20})(:443|:[0-9]{1,5})?[/?#\\@a-z]{0,2}[!-~]{0,40}",
        ) {
            let to = Outside::parse("https://hooks.example.com").unwrap();
            if let Ok(target) = target(value.as_bytes(), &to) {
                let uri: Uri = value.parse().unwrap();
                prop_assert_eq!(uri.host(), Some("hooks.example.com"));
                prop_assert!(matches!(uri.port_u16(), None | Some(443)));
                prop_assert_eq!(uri.authority().unwrap().as_str().contains('@'), false);
                prop_assert_eq!(uri.path_and_query().unwrap().as_str().as_bytes(), target);
                prop_assert!(!parts(value.as_bytes()).is_empty(), "and something of it is guarded");
            }
        }
    }

    #[test]
    fn an_address_leads_where_the_mesh_file_says_and_nowhere_else() {
        let slack = "https://hooks.slack.com";
        let target = "/services/T00000000/B00000000/abcdefghijklmnopqrstuvwx";
        assert_eq!(read(SLACK, slack).as_deref(), Ok(target));
        assert_eq!(read(&format!("{slack}:443{target}"), slack).as_deref(), Ok(target));
        let other = "https://hooks.example.com:8443";
        assert_eq!(
            read(&format!("{other}/?key=0123456789"), other).as_deref(),
            Ok("/?key=0123456789")
        );
        let mut wrong = Vec::new();
        for (value, why) in [
            (format!("http://hooks.slack.com{target}"), NoHook::Elsewhere),
            (format!("HTTPS://hooks.slack.com{target}"), NoHook::Elsewhere),
            (
                format!("https://hooks.slack.com.evil.example{target}"),
                NoHook::Elsewhere,
            ),
            (format!("https://evil.example{target}"), NoHook::Elsewhere),
            (format!("https://hooks.slack.com:8443{target}"), NoHook::Elsewhere),
            (format!("https://hooks.slack.com:0443{target}"), NoHook::Elsewhere),
            (format!("https://hooks.slack.com:{target}"), NoHook::Elsewhere),
            (format!("https://HOOKS.slack.com{target}"), NoHook::Elsewhere),
            (format!("https://hooks.slack.com.{target}"), NoHook::Elsewhere),
            (
                format!("https://hooks.slack.com\\@evil.example{target}"),
                NoHook::Readings,
            ),
            (format!("https://hooks.slack.com@evil.example{target}"), NoHook::User),
            (format!("https://u:p@hooks.slack.com{target}"), NoHook::User),
            (format!("//hooks.slack.com{target}"), NoHook::Elsewhere),
            (target.to_owned(), NoHook::Elsewhere),
            (slack.to_owned(), NoHook::Short),
            (format!("{slack}/"), NoHook::Short),
            (format!("{slack}/1234567"), NoHook::Short),
            (format!("{slack}?key=0123456789"), NoHook::Readings),
            (format!("{SLACK}#more"), NoHook::Readings),
            (format!("{SLACK}?a=1#more"), NoHook::Readings),
            (format!("{SLACK}/../other"), NoHook::Readings),
            (format!("{SLACK}/%2e%2e/other"), NoHook::Readings),
            (format!("{SLACK}//x"), NoHook::Readings),
            (format!("{SLACK}%2Fx"), NoHook::Readings),
            (format!("{SLACK}?a b"), NoHook::Readings),
            (format!("{SLACK}\r\nx: y"), NoHook::Readings),
            (format!("{SLACK}{}", "a".repeat(URL_BYTES_MAX)), NoHook::Long),
        ] {
            let got = read(&value, slack);
            if got != Err(why) {
                wrong.push((value, got));
            }
        }
        assert_eq!(wrong, []);
    }

    #[test]
    fn what_is_guarded_is_what_follows_the_host_and_every_part_of_it_that_could_be_a_key() {
        let of = |value: &str| {
            let parts = parts(value.as_bytes());
            let texts = parts.iter().map(|part| String::from_utf8(part.to_vec()).unwrap());
            texts.collect::<Vec<_>>()
        };
        let whole = "services/T00000000/B00000000/abcdefghijklmnopqrstuvwx";
        assert_eq!(of(SLACK), ["abcdefghijklmnopqrstuvwx", whole, whole]);
        let teams = "https://prod-00.westus.logic.azure.com:443/workflows/0123456789abcdef0123456789abcdef/triggers/manual/paths/invoke?api-version=2016-06-01&sp=%2Ftriggers%2Fmanual%2Frun&sv=1.0&sig=abcdefghijklmnopqrstuvwxyz";
        let guarded = of(teams);
        for part in [
            "0123456789abcdef0123456789abcdef",
            "abcdefghijklmnopqrstuvwxyz",
            "/triggers/manual/run",
        ] {
            assert!(guarded.iter().any(|guarded| guarded == part), "{part}: {guarded:?}");
        }
        for word in ["workflows", "triggers", "2016-06-01", "1.0"] {
            assert!(
                !guarded.iter().any(|guarded| guarded == word),
                "{word} is found by chance"
            );
        }
        assert_eq!(of("https://hooks.example.com/catch/12/ab"), ["catch/12/ab"]);
        assert_eq!(of("sk-ant-0123456789"), [] as [&str; 0]);
        assert_eq!(of("https://hooks.example.com"), [] as [&str; 0]);
    }
}
