//! The one reading of bytes that a callee got. It knows the grammar of RFC 9112 in its narrowest form, and nothing of the
//! code that wrote them: where a second reader could read the bytes otherwise, this one refuses them.

/// A message as the callee got it.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) line: String,
    /// Names in lower case, with their values.
    pub(super) fields: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    /// Whether its end came.
    pub(super) whole: bool,
}

impl Message {
    pub(super) fn values(&self, name: &str) -> Vec<&str> {
        let of_name = self.fields.iter().filter(|(n, _)| n == name);
        of_name.map(|(_, value)| value.as_str()).collect()
    }

    pub(super) fn target(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }
}

/// Reads all messages that one connection brought; the last may be cut off. With them comes what could be read otherwise.
pub(super) fn messages(mut bytes: &[u8]) -> (Vec<Message>, Result<(), String>) {
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let (message, rest) = match message(bytes) {
            Ok(read) => read,
            Err(ambiguous) => return (messages, Err(format!("{ambiguous} in {:?}", text(bytes)))),
        };
        bytes = if message.whole { rest } else { &[] };
        messages.push(message);
    }
    (messages, Ok(()))
}

fn message(bytes: &[u8]) -> Result<(Message, &[u8]), String> {
    let Some(end) = find(bytes, b"\r\n\r\n") else {
        return Err(format!("a head without its end: {:?}", text(bytes)));
    };
    let mut lines = text(&bytes[..end])
        .split("\r\n")
        .map(str::to_owned)
        .collect::<Vec<_>>()
        .into_iter();
    let line = lines.next().unwrap_or_default();
    request_line(&line)?;
    let fields = lines.map(|line| field(&line)).collect::<Result<Vec<_>, _>>()?;
    let mut message = Message {
        line,
        fields,
        body: Vec::new(),
        whole: false,
    };
    if message.values("host").len() != 1 {
        return Err(format!("not one host: {message:?}"));
    }
    let rest = body(&mut message, &bytes[end + 4..])?;
    Ok((message, rest))
}

/// `METHOD /path?query HTTP/1.1`, in characters that every reader takes as they are.
fn request_line(line: &str) -> Result<(), String> {
    let wrong = || format!("a request line that could be read otherwise: {line:?}");
    let parts: Vec<&str> = line.split(' ').collect();
    let [method, target, "HTTP/1.1"] = parts[..] else {
        return Err(wrong());
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let plain = method.bytes().all(|b| b.is_ascii_uppercase() || b == b'-')
        && !method.is_empty()
        && path.starts_with('/')
        && path
            .bytes()
            .chain(query.bytes())
            .all(|b| (0x21..0x7f).contains(&b) && !b"\\#\"<>".contains(&b))
        && !path.contains(';')
        && !path[1..].split('/').rev().skip(1).any(str::is_empty)
        && !path.split('/').any(|segment| segment == "." || segment == "..")
        && !["%2f", "%5c", "%00", "%2e", "%25"]
            .iter()
            .any(|escape| path.to_ascii_lowercase().contains(escape));
    if plain { Ok(()) } else { Err(wrong()) }
}

fn field(line: &str) -> Result<(String, String), String> {
    let wrong = || format!("a field that could be read otherwise: {line:?}");
    let (name, value) = line.split_once(": ").ok_or_else(wrong)?;
    let token = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&b);
    let control = |b: u8| (b < 0x20 && b != b'\t') || b == 0x7f;
    // Values were read by Latin-1: each character is one byte.
    let padded = value.starts_with([' ', '\t']) || value.ends_with([' ', '\t']);
    if name.is_empty() || !name.bytes().all(token) || padded || value.bytes().any(control) {
        return Err(wrong());
    }
    let folded: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let frames = ["content-length", "transfer-encoding", "host", "connection", "upgrade"];
    if folded != name && frames.contains(&folded.as_str()) {
        return Err(wrong());
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// Reads the body by the one field that frames it.
fn body<'a>(message: &mut Message, bytes: &'a [u8]) -> Result<&'a [u8], String> {
    let (lengths, codings) = (message.values("content-length"), message.values("transfer-encoding"));
    match (lengths.as_slice(), codings.as_slice()) {
        ([], []) => {
            message.whole = true;
            Ok(bytes)
        }
        ([length], []) => {
            let number: usize = length.parse().map_err(|e| format!("{length:?}: {e}"))?;
            if number.to_string() != *length {
                return Err(format!("a length with more than its digits: {length:?}"));
            }
            let here = number.min(bytes.len());
            message.body = bytes[..here].to_vec();
            message.whole = here == number;
            Ok(&bytes[here..])
        }
        ([], ["chunked"]) => chunks(message, bytes),
        _ => Err(format!("two ways to end a body: {lengths:?} {codings:?}")),
    }
}

fn chunks<'a>(message: &mut Message, mut bytes: &'a [u8]) -> Result<&'a [u8], String> {
    loop {
        let Some(end) = find(bytes, b"\r\n") else {
            return Ok(bytes);
        };
        let line = text(&bytes[..end]);
        let size = usize::from_str_radix(&line, 16).map_err(|e| format!("a chunk of {line:?}: {e}"))?;
        if format!("{size:x}") != line {
            return Err(format!("a size with more than its digits: {line:?}"));
        }
        bytes = &bytes[end + 2..];
        if size == 0 {
            return trailers(message, bytes);
        }
        message.body.extend(&bytes[..size.min(bytes.len())]);
        let Some(after) = bytes.get(size..) else {
            return Ok(bytes);
        };
        if after.len() >= 2 && !after.starts_with(b"\r\n") {
            return Err(format!("a chunk that does not end where it says: {:?}", text(after)));
        }
        let Some(rest) = after.get(2..) else { return Ok(bytes) };
        bytes = rest;
    }
}

fn trailers<'a>(message: &mut Message, mut bytes: &'a [u8]) -> Result<&'a [u8], String> {
    loop {
        let Some(end) = find(bytes, b"\r\n") else {
            return Ok(bytes);
        };
        let line = text(&bytes[..end]);
        bytes = &bytes[end + 2..];
        if line.is_empty() {
            message.whole = true;
            return Ok(bytes);
        }
        let (name, _value) = field(&line)?;
        let frames = [
            "content-length",
            "transfer-encoding",
            "host",
            "connection",
            "te",
            "trailer",
            "x-botmesh-caller",
        ];
        if frames.contains(&name.as_str()) || name.starts_with("x-forwarded-client-cert") {
            return Err(format!("a trailer that may not be one: {line:?}"));
        }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

#[test]
fn the_reader_refuses_what_two_readers_could_read_differently() {
    let good = b"POST /orders/1?a HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhiGET / HTTP/1.1\r\nhost: a\r\n\r\n";
    let (read, plain) = messages(good);
    plain.expect("two messages");
    assert_eq!(
        (read.len(), read[0].body.as_slice(), read[1].whole),
        (2, &b"hi"[..], true)
    );
    let head = "POST / HTTP/1.1\r\nhost: a\r\n";
    for wrong in [
        "GET  / HTTP/1.1\r\nhost: a\r\n\r\n",
        "get / HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /a/../b HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        format!("{head}host: a\r\n\r\n").as_str(),
        format!("{head}content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n").as_str(),
        format!("{head}content-length: 05\r\n\r\nhello").as_str(),
        format!("{head}content-length: 1\r\ncontent-length: 1\r\n\r\nh").as_str(),
        format!("{head}content_length: 1\r\n\r\n").as_str(),
        format!("{head}x: 1\n\r\n\r\n").as_str(),
        format!("{head}x : 1\r\n\r\n").as_str(),
        format!("{head}x: 1\r\n 2\r\n\r\n").as_str(),
        format!("{head}transfer-encoding: chunked\r\n\r\n5;x\r\nhello\r\n0\r\n\r\n").as_str(),
        format!("{head}transfer-encoding: chunked\r\n\r\n05\r\nhello\r\n0\r\n\r\n").as_str(),
        format!("{head}transfer-encoding: chunked\r\n\r\n4\r\nhello\r\n0\r\n\r\n").as_str(),
        format!("{head}transfer-encoding: chunked\r\n\r\n0\r\ncontent-length: 1\r\n\r\n").as_str(),
    ] {
        messages(wrong.as_bytes()).1.expect_err(wrong);
    }
    let (cut, plain) = messages(format!("{head}content-length: 3\r\n\r\nhi").as_bytes());
    plain.expect("a message that is cut off");
    assert!(!cut[0].whole);
}
