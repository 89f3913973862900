//! No bytes make the reader of chunked bodies panic, and the body does not depend on how they arrive.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use proxy::http1::chunk::{Chunk, ChunkReader};

/// Reads what `step` bytes at a time give: the body, and whether it ended, broke, or wants more.
fn read(bytes: &[u8], step: usize) -> (Vec<u8>, &'static str) {
    let (mut reader, mut buf, mut body) = (ChunkReader::default(), BytesMut::new(), Vec::new());
    for piece in bytes.chunks(step) {
        buf.extend_from_slice(piece);
        loop {
            match reader.next(&mut buf) {
                Ok(Chunk::More) => break,
                Ok(Chunk::Data(data)) => body.extend_from_slice(&data),
                Ok(Chunk::End(_)) => return (body, "end"),
                Err(_) => return (body, "refused"),
            }
        }
    }
    (body, "more")
}

fuzz_target!(|bytes: &[u8]| {
    let whole = read(bytes, bytes.len().max(1));
    for step in [1, 3, 7] {
        assert_eq!(read(bytes, step), whole);
    }
});
