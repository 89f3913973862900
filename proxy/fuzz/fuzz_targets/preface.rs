//! Which protocol a connection speaks is settled by its bytes alone, however they are cut, and nothing of them is lost.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proxy::http1::Limits;
use proxy::http1::read::Reader;
use tokio::io::AsyncWriteExt;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fuzz_target!(|input: (&[u8], u8)| {
    let (bytes, piece) = input;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let (mut peer, end) = tokio::io::duplex(usize::from(piece) + 1);
        let mut reader = Reader::new(end, Limits::default());
        let writing = async {
            // A reader that is content reads no further.
            let _all = peer.write_all(bytes).await;
            drop(peer);
        };
        let told = async {
            let told = reader.begins_with(PREFACE).await;
            assert!(bytes.starts_with(reader.buffered()));
            drop(reader);
            told
        };
        let (_written, told) = tokio::join!(writing, told);
        match told {
            Ok(None) => assert!(bytes.is_empty()),
            Ok(Some(begins)) => assert_eq!(begins, bytes.starts_with(PREFACE)),
            Err(_cut) => assert!(!bytes.is_empty() && PREFACE.starts_with(bytes)),
        }
    });
});
