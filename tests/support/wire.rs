//! Reads a packet capture as far as a test needs it: TCP streams put together, TLS records, the two hellos.
use std::collections::BTreeMap;

/// What one end said to the other: `10.77.0.1:4444>10.77.0.2:15443`.
pub(crate) type Streams = BTreeMap<String, Vec<u8>>;

fn be16(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]))
}

fn le32(bytes: &[u8], at: usize) -> usize {
    usize::try_from(u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())).unwrap()
}

/// Puts the TCP streams of a capture of Ethernet frames together; a gap is a failure of the test.
pub(crate) fn streams(pcap: &[u8]) -> Streams {
    assert_eq!(le32(pcap, 0), 0xa1b2_c3d4, "little-endian pcap with microseconds");
    assert_eq!(le32(pcap, 20), 1, "Ethernet");
    let mut segments: BTreeMap<String, Vec<(u32, bool, Vec<u8>)>> = BTreeMap::new();
    let mut at = 24;
    while at + 16 <= pcap.len() {
        let length = le32(pcap, at + 8);
        assert_eq!(length, le32(pcap, at + 12), "whole packets");
        let frame = &pcap[at + 16..at + 16 + length];
        at += 16 + length;
        if be16(frame, 12) != 0x0800 || frame[14 + 9] != 6 {
            continue;
        }
        let ip = &frame[14..14 + be16(frame, 16)];
        let tcp = &ip[usize::from(ip[0] & 0xf) * 4..];
        let dotted = |at: usize| format!("{}.{}.{}.{}", ip[at], ip[at + 1], ip[at + 2], ip[at + 3]);
        let name = format!("{}:{}>{}:{}", dotted(12), be16(tcp, 0), dotted(16), be16(tcp, 2));
        let sequence = u32::from_be_bytes(tcp[4..8].try_into().unwrap());
        let payload = tcp[usize::from(tcp[12] >> 4) * 4..].to_vec();
        segments
            .entry(name)
            .or_default()
            .push((sequence, tcp[13] & 2 != 0, payload));
    }
    let joined = segments.into_iter().map(|(name, segments)| {
        let bytes = join(&name, &segments);
        (name, bytes)
    });
    joined.filter(|(_, bytes)| !bytes.is_empty()).collect()
}

fn join(name: &str, segments: &[(u32, bool, Vec<u8>)]) -> Vec<u8> {
    let (first, ..) = segments
        .iter()
        .find(|(_, syn, _)| *syn)
        .unwrap_or_else(|| panic!("{name}: it began before the capture"));
    let mut parts: Vec<(usize, &Vec<u8>)> = segments
        .iter()
        .filter(|(_, syn, payload)| !syn && !payload.is_empty())
        .map(|(sequence, _, payload)| {
            let offset = sequence.wrapping_sub(first.wrapping_add(1));
            (usize::try_from(offset).unwrap(), payload)
        })
        .collect();
    parts.sort();
    let mut bytes = Vec::new();
    for (offset, payload) in parts {
        assert!(offset <= bytes.len(), "{name}: a gap at {}", bytes.len());
        let known = bytes.len() - offset;
        bytes.extend(payload.iter().skip(known));
    }
    bytes
}

/// The records of a TLS stream: content type and body. Anything that is no TLS is a failure.
pub(crate) fn records(name: &str, stream: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut records = Vec::new();
    let mut at = 0;
    while at + 5 <= stream.len() {
        assert!(
            (20..=23).contains(&stream[at]) && stream[at + 1] == 3,
            "{name}: no TLS record at {at}"
        );
        let end = (at + 5 + be16(stream, at + 3)).min(stream.len());
        records.push((stream[at], stream[at + 5..end].to_vec()));
        at = end;
    }
    records
}

/// What a ServerHello (RFC 8446 §4.1.3) chose: the version and the group of the key share.
pub(crate) fn server_hello(hello: &[u8]) -> (usize, usize) {
    assert_eq!(hello[0], 2, "a ServerHello");
    let session = 4 + 2 + 32;
    let mut at = session + 1 + usize::from(hello[session]) + 2 + 1 + 2;
    let (mut version, mut group) = (0, 0);
    while at + 4 <= hello.len() {
        let length = be16(hello, at + 2);
        match be16(hello, at) {
            43 => version = be16(hello, at + 4),
            51 => group = be16(hello, at + 4),
            _ => {}
        }
        at += 4 + length;
    }
    (version, group)
}
