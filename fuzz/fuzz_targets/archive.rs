//! Whatever a file is, `scan` looks at it to its end; and nothing in one entry of an archive hides the next.
#![no_main]

use libfuzzer_sys::fuzz_target;

/// The program has no library: what is fuzzed knows nothing of the rest of it.
#[path = "../../src/cli/scan"]
mod scan {
    pub(crate) mod look;
    pub(crate) mod packed;
    pub(crate) mod source;
    pub(crate) mod tar;
    pub(crate) mod zip;
}

use scan::look::{Bounds, Looked};

fuzz_target!(|bytes: &[u8]| {
    let mut looked = looker();
    looked.stream("f", bytes).expect("it is in memory");
    let alone = looked.findings.len();
    let key = ["ghp_", "0123456789abcdefghijABCDEFGHIJ012345"].concat();
    let archive = [entry("a", bytes), entry("b", key.as_bytes()), vec![0; 1024]].concat();
    let mut looked = looker();
    looked.stream("f", archive.as_slice()).expect("it is in memory");
    let last = looked.findings.last().expect("the key is found");
    assert_eq!((last.file.as_str(), last.line), ("f!b", 1));
    assert_eq!(looked.findings.len(), alone + 1);
    assert!(looked.missed.iter().all(|missed| missed.file != "f"), "{:?}", looked.missed);
});

fn looker() -> Looked {
    Looked::within(Bounds {
        depth: 6,
        unpacked_bytes: 1024 * 1024,
        ..Bounds::default()
    })
}

/// An entry of a tar file.
fn entry(name: &str, data: &[u8]) -> Vec<u8> {
    let mut block = vec![0; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[124..135].copy_from_slice(format!("{:011o}", data.len()).as_bytes());
    block[148..156].fill(b' ');
    block[156] = b'0';
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    block.extend(data);
    block.resize(block.len().next_multiple_of(512), 0);
    block
}
