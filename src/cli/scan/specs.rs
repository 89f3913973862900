//! What is found in archives that are odd, broken or meant to have no end. Ordinary ones are made by others: `tests/scan.rs`.

use std::io::Write as _;

use flate2::write::{DeflateEncoder, GzEncoder};

use super::look::{Bounds, Looked};

const KEY: &str = concat!("sk-ant-", "api03-0123456789abcdef");

/// Where keys are, and what was not wholly looked at.
#[derive(Debug, PartialEq)]
struct Seen {
    places: Vec<String>,
    missed: Vec<String>,
}

fn look(bounds: Bounds, file: &[u8]) -> Seen {
    let mut looked = Looked::within(bounds);
    looked.stream("f", file).unwrap();
    Seen {
        places: looked
            .findings
            .iter()
            .map(|at| format!("{}:{}", at.file, at.line))
            .collect(),
        missed: looked
            .missed
            .iter()
            .map(|at| format!("{}: {}", at.file, at.why))
            .collect(),
    }
}

fn check(file: &[u8], places: &[&str], missed: &[&str]) {
    check_within(Bounds::default(), file, places, missed);
}

fn check_within(bounds: Bounds, file: &[u8], places: &[&str], missed: &[&str]) {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    let wanted = Seen {
        places: texts(places),
        missed: texts(missed),
    };
    assert_eq!(look(bounds, file), wanted);
}

/// A header of tar, and the data filled to a block.
fn tar(kind: u8, name: &str, size: usize, data: &[u8]) -> Vec<u8> {
    let mut block = vec![0; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    block[156] = kind;
    sum(&mut block);
    block.extend(data);
    block.resize(block.len().next_multiple_of(512), 0);
    block
}

fn sum(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}

fn file(name: &str, text: &str) -> Vec<u8> {
    tar(b'0', name, text.len(), text.as_bytes())
}

fn pax(key: &str, value: &str) -> Vec<u8> {
    let rest = format!(" {key}={value}\n");
    let length = (1..)
        .find(|length| length.to_string().len() + rest.len() == *length)
        .unwrap();
    let record = format!("{length}{rest}");
    tar(b'x', "pax", record.len(), record.as_bytes())
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn deflate(text: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

/// An entry of zip: flags, method, the sizes that its header tells, its name and data.
fn zip(flags: u8, method: u8, sizes: [usize; 2], name: &str, data: &[u8]) -> Vec<u8> {
    let sizes = sizes.map(|size| u32::try_from(size).unwrap().to_le_bytes()).concat();
    let names = [u8::try_from(name.len()).unwrap(), 0, 0, 0];
    let head = [*b"PK\x03\x04\x14\0", [flags, 0, method, 0, 0, 0], [0; 6]].concat();
    [&head[..], &[0; 0], &sizes, &names, name.as_bytes(), data].concat()
}

#[test]
fn a_tar_that_is_broken_is_told_with_where_and_looked_at_to_its_end() {
    let whole = [file("a", "x\n"), file("b", KEY)].concat();
    check(&whole, &["f!b:1"], &[]);
    let broken = [file("a", "x\n"), vec![b'?'; 512], file("b", KEY)].concat();
    check(
        &broken,
        &["f:1"],
        &["f: byte 1024 is no header of tar: what follows is looked at as it is"],
    );
    check(
        &whole[..1024 + 512 + KEY.len() - 1],
        &["f!b:1"],
        &["f!b: it ends too early", "f: it ends too early"],
    );
    check(&whole[..1024 + 300], &[], &["f: it ends too early"]);
}

#[test]
fn the_sum_of_a_header_is_its_proof() {
    let mut wrong = [file("a", "x\n"), file("b", KEY)].concat();
    wrong[0] = b'z';
    check(&wrong, &["f:2"], &[]);
    // As programs added it up that took bytes to be signed.
    let mut archive = file("a", KEY);
    archive[0] = 0xe4;
    archive[148..156].fill(b' ');
    let signed: i32 = archive[..512].iter().map(|byte| i32::from(byte.cast_signed())).sum();
    archive[148..155].copy_from_slice(format!("{signed:06o}\0").as_bytes());
    check(&archive, &["f!\u{fffd}:1"], &[]);
}

#[test]
fn what_was_put_after_the_end_of_an_archive_is_looked_at_too() {
    let end = vec![0; 1024];
    check(&[file("a", "x"), end.clone(), file("b", KEY)].concat(), &["f!b:1"], &[]);
    let text = format!("\n{KEY}");
    check(&[gzip(b"x"), text.clone().into_bytes()].concat(), &["f:2"], &[]);
    check(
        &[zip(0, 0, [1, 1], "a", b"x"), b"PK\x05\x06".to_vec(), text.into_bytes()].concat(),
        &["f:2"],
        &[],
    );
}

#[test]
fn only_what_has_data_is_read_as_having_some() {
    // A size of a link or a folder is the size of something else.
    for kind in b'1'..=b'6' {
        check(&[tar(kind, "l", 4096, b""), file("b", KEY)].concat(), &["f!b:1"], &[]);
    }
    check(
        &[tar(0, "folder/", 4096, b""), file("b", KEY)].concat(),
        &["f!b:1"],
        &[],
    );
    for kind in [0, b'7', b'Z'] {
        check(&tar(kind, "a", KEY.len(), KEY.as_bytes()), &["f!a:1"], &[]);
    }
}

#[test]
fn a_record_of_pax_has_the_last_word_on_size_and_name() {
    let mut data = tar(b'0', "short", 0, KEY.as_bytes());
    data.extend(file("b", KEY));
    let long = "n".repeat(300);
    let archive = [pax("path", &long), pax("size", &KEY.len().to_string()), data].concat();
    check(&archive, &[&format!("f!{long}:1"), "f!b:1"], &[]);
    let odd = [tar(b'x', "pax", 9, b"7 path=a\n"), file("b", KEY)].concat();
    check(&odd, &["f!b:1"], &["f: the record of pax at byte 0 cannot be read"]);
    let secret = [pax("SCHILY.xattr.user.token", KEY), file("b", "")].concat();
    check(&secret, &["f:1"], &[]);
}

#[test]
fn a_size_too_large_for_octal_is_read_as_gnu_writes_it() {
    let mut archive = file("a", KEY);
    archive[124..136].fill(0);
    archive[124] = 0x80;
    archive[135] = u8::try_from(KEY.len()).unwrap();
    sum(&mut archive[..512]);
    check(&[archive.clone(), file("b", KEY)].concat(), &["f!a:1", "f!b:1"], &[]);
    archive[124..136].fill(0xff);
    sum(&mut archive[..512]);
    check(
        &[file("b", "x"), archive].concat(),
        &["f:1"],
        &["f: byte 1024 is no header of tar: what follows is looked at as it is"],
    );
}

#[test]
fn compressed_streams_that_are_broken_are_told() {
    let text = format!("{KEY}\n").repeat(3);
    let mut packed = gzip(text.as_bytes());
    check(
        &packed[..packed.len() - 8],
        &["f:1", "f:2", "f:3"],
        &["f: it ends too early"],
    );
    let at = packed.len() - 6;
    packed[at] ^= 1;
    check(
        &packed,
        &["f:1", "f:2", "f:3"],
        &["f: corrupt gzip stream does not have a matching checksum"],
    );
    let in_tar = [tar(b'0', "a.gz", packed.len(), &packed), file("b", KEY)].concat();
    let told = "f!a.gz: corrupt gzip stream does not have a matching checksum";
    check(&in_tar, &["f!a.gz:1", "f!a.gz:2", "f!a.gz:3", "f!b:1"], &[told]);
    // One block as it is, with a wrong sum after it.
    let zstd = [b"\x28\xb5\x2f\xfd\x24\x01\x09\0\0x".as_slice(), &[1, 2, 3, 4]].concat();
    check(&zstd, &[], &["f: its checksum is wrong"]);
    check(b"\x50\x2a\x4d\x18\xff\0\0\0and so on", &[], &["f: it ends too early"]);
    check(b"BZh91AY&SY", &[], &["f: compressed (bzip2), and not looked into"]);
}

#[test]
fn what_nobody_looks_into_is_told_by_its_form() {
    for (begin, kind) in [
        (b"\xfd7zXZ\0".as_slice(), "xz"),
        (b"7z\xbc\xaf\x27\x1c", "7z"),
        (b"Rar!\x1a\x07\x01\0", "rar"),
        (b"LZIP\x01", "lzip"),
        (b"\x04\x22\x4d\x18", "lz4"),
        (b"\x1f\x9d\x90", "compress"),
        (b"hsqs", "squashfs"),
        (b"!<arch>\ndebian-binary   ", "deb"),
        (b"\xed\xab\xee\xdb\x03", "rpm"),
    ] {
        let told = format!("f: compressed ({kind}), and not looked into");
        check(
            &[begin, b"\n", KEY.as_bytes()].concat(),
            &[if kind == "deb" { "f:3" } else { "f:2" }],
            &[&told],
        );
    }
    check(b"!<arch>\nlib.o", &[], &[]);
}

#[test]
fn archives_in_each_other_have_a_bound() {
    let bounds = Bounds {
        depth: 2,
        ..Bounds::default()
    };
    let inner = [file("b", KEY), file("c", "")].concat();
    let packed = gzip(&inner);
    check_within(bounds, &packed, &["f!b:1"], &[]);
    let told = "more than 2 archives in each other: it is looked at as it is";
    let outer = [tar(b'0', "a.gz", packed.len(), &packed), file("d", KEY)].concat();
    check_within(bounds, &outer, &["f!a.gz:1", "f!d:1"], &[&format!("f!a.gz: {told}")]);
    let outer = tar(b'0', "a.tar", inner.len(), &inner);
    check_within(bounds, &gzip(&outer), &["f!a.tar:1"], &[&format!("f!a.tar: {told}")]);
}

#[test]
fn what_comes_out_of_a_file_has_a_bound_that_grows_with_the_file() {
    let bounds = |unpacked_bytes, unpacked_ratio| Bounds {
        unpacked_bytes,
        unpacked_ratio,
        ..Bounds::default()
    };
    let mut text = vec![b'\n'; 3 * 1024 * 1024];
    text.extend(KEY.as_bytes());
    let found = format!("f:{}", 3 * 1024 * 1024 + 1);
    let told = "f: what comes out of it is far too long for what it is";
    let bomb = gzip(&text);
    check_within(bounds(4 * 1024 * 1024, 1), &bomb, &[&found], &[]);
    check_within(bounds(1024, 5000), &bomb, &[&found], &[]);
    check_within(bounds(1024, 10), &bomb, &[], &[told]);
    let deflated = deflate(&text);
    let entry = zip(0, 8, [deflated.len(), text.len()], "a", &deflated);
    let archive = [entry, zip(0, 0, [KEY.len(); 2], "b", KEY.as_bytes())].concat();
    check_within(
        bounds(1024, 10),
        &archive,
        &["f!b:1"],
        &[&told.replace("f:", "f!a:"), "f: it ends too early"],
    );
    // All that comes out is counted together.
    let twice = [
        file("x", ""),
        tar(b'0', "a", bomb.len(), &bomb),
        tar(b'0', "b", bomb.len(), &bomb),
    ]
    .concat();
    let seen = look(bounds(4 * 1024 * 1024, 1), &twice);
    assert_eq!(seen.missed, [told.replace("f:", "f!b:")]);
}

#[test]
fn entries_and_names_have_bounds() {
    let bounds = Bounds {
        entries: 2,
        name_bytes: 5,
        header_bytes: 100,
        ..Bounds::default()
    };
    let archive = [file("a", ""), file("b", ""), file("c", KEY)].concat();
    check_within(bounds, &archive, &["f:1"], &["f: more than 2 entries"]);
    let stored = |name| zip(0, 0, [KEY.len(); 2], name, KEY.as_bytes());
    let archive = [stored("a"), stored("b"), stored("c.")].concat();
    check_within(
        bounds,
        &archive,
        &["f!a:1", "f!b:1", "f:1"],
        &["f: more than 2 entries"],
    );
    let named = [stored("123456"), b"PK\x05\x06".to_vec()].concat();
    check_within(bounds, &named, &["f!12345…:1"], &[]);
    let named = [tar(b'L', "././@LongLink", 200, &[b'n'; 200]), file("b", KEY)].concat();
    check_within(bounds, &named, &["f!nnnnn…:1"], &[]);
    // No more of it is kept, not even to be looked at.
    let named = [
        tar(b'K', "././@LongLink", 6 + KEY.len(), format!("......{KEY}").as_bytes()),
        file("b", ""),
    ]
    .concat();
    check_within(bounds, &named, &[], &[]);
    let long = [pax("comment", &"c".repeat(100)), file("b", KEY)].concat();
    let told = "f: byte 0 is no header of tar that is short enough: what follows is looked at as it is";
    check_within(bounds, &long, &["f:2"], &[told]);
}

#[test]
fn what_is_listed_has_bounds_and_the_rest_is_counted() {
    let many = format!("{KEY}\n").repeat(101);
    let mut looked = Looked::within(Bounds::default());
    looked.stream("f", many.as_bytes()).unwrap();
    assert_eq!((looked.findings.len(), looked.unlisted), (100, 1));
    let archive: Vec<u8> = (0..101).flat_map(|at| file(&format!("{at}"), &many)).collect();
    let mut looked = Looked::within(Bounds::default());
    looked.stream("f", archive.as_slice()).unwrap();
    assert_eq!((looked.findings.len(), looked.unlisted), (10_000, 101 * 101 - 10_000));
    let xz = b"\xfd7zXZ\0";
    let closed: Vec<u8> = (0..1001)
        .flat_map(|at| tar(b'0', &format!("{at}"), xz.len(), xz))
        .collect();
    let mut looked = Looked::within(Bounds::default());
    looked.stream("f", closed.as_slice()).unwrap();
    assert_eq!((looked.missed.len(), looked.missed_unlisted), (1000, 1));
}

#[test]
fn how_far_back_a_frame_reaches_has_a_bound_that_is_lower_in_the_depth() {
    // A frame of one byte that asks for a window of two to the power of so many bytes.
    let frame = |power: u8| [b"\x28\xb5\x2f\xfd\0".as_slice(), &[(power - 10) << 3], b"\x09\0\0x"].concat();
    check(&frame(27), &[], &[]);
    let too_wide = |file: &[u8]| {
        let missed = look(Bounds::default(), file).missed;
        matches!(missed.as_slice(), [one] if one.contains("window"))
    };
    assert!(too_wide(&frame(28)));
    let deep = |frame: &[u8]| gzip(&gzip(&gzip(frame)));
    check(&deep(&frame(23)), &[], &[]);
    assert!(too_wide(&deep(&frame(24))));
}

#[test]
fn what_a_zip_keeps_closed_is_told() {
    let next = zip(0, 0, [KEY.len(); 2], "b", KEY.as_bytes());
    let entry = |flags, method| [zip(flags, method, [3, 3], "a", b"???"), next.clone()].concat();
    check(
        &entry(1, 0),
        &["f!b:1"],
        &["f!a: encrypted, and not looked into", "f: it ends too early"],
    );
    let told = "f!a: compressed by method 14 of zip, and not looked into";
    check(&entry(0, 14), &["f!b:1"], &[told, "f: it ends too early"]);
    let broken = [next, b"????".to_vec(), KEY.into()].concat();
    let told = "f: byte 60 is no header of zip: what follows is looked at as it is";
    check(&broken, &["f!b:1", "f:1"], &[told]);
}

/// How a zip ends that names no entries.
const END: &[u8] = b"PK\x05\x06";

/// The sizes of an entry as they are told after it.
fn narrow(small: u32, full: u32) -> Vec<u8> {
    [*b"PK\x07\x08", [0; 4], small.to_le_bytes(), full.to_le_bytes()].concat()
}

#[test]
fn data_of_a_zip_ends_where_its_size_is_told_rightly() {
    // Something in the data looks like its end, but tells another size.
    let data = [narrow(1, 1), format!("\n{KEY}\n").into_bytes(), vec![b'.'; 200_000]].concat();
    let size = u32::try_from(data.len()).unwrap();
    let wide = [*b"PK\x07\x08", [0; 4]].concat();
    let wide = [
        &wide[..],
        &u64::from(size).to_le_bytes(),
        &u64::from(size).to_le_bytes(),
    ]
    .concat();
    for told in [narrow(size, size), wide] {
        let archive = [
            zip(8, 0, [0, 0], "a", &data),
            told,
            zip(0, 0, [KEY.len(); 2], "b.", KEY.as_bytes()),
            END.to_vec(),
        ]
        .concat();
        check(&archive, &["f!a:2", "f!b.:1"], &[]);
    }
    check(
        &zip(8, 0, [0, 0], "a", &data),
        &["f!a:2"],
        &["f!a: it ends too early", "f: it ends too early"],
    );
    // Where what is told is on both sides of what is read together.
    for length in 65_500..65_550 {
        let data = vec![b'.'; length];
        let size = u32::try_from(length).unwrap();
        let next = zip(0, 0, [KEY.len(); 2], "b.", KEY.as_bytes());
        let archive = [zip(8, 0, [0, 0], "a", &data), narrow(size, size), next, END.to_vec()].concat();
        check(&archive, &["f!b.:1"], &[]);
    }
}

#[test]
fn deflated_data_of_a_zip_ends_by_itself_and_is_as_long_as_is_told() {
    let packed = deflate(KEY.as_bytes());
    let (small, full) = (u32::try_from(packed.len()).unwrap(), u32::try_from(KEY.len()).unwrap());
    for (told, places, missed) in [
        (narrow(small, full), ["f!a:1", "f!b.:1"], vec![]),
        (narrow(small, full)[4..].to_vec(), ["f!a:1", "f!b.:1"], vec![]),
        (
            narrow(small, 9),
            ["f!a:1", "f:1"],
            vec![format!(
                "f: byte {} is no size of an entry of zip: what follows is looked at as it is",
                31 + packed.len()
            )],
        ),
    ] {
        let archive = [
            zip(8, 8, [0, 0], "a", &packed),
            told,
            zip(0, 0, [KEY.len(); 2], "b.", KEY.as_bytes()),
            END.to_vec(),
        ]
        .concat();
        let missed: Vec<&str> = missed.iter().map(String::as_str).collect();
        check(&archive, &places, &missed);
    }
    // Encrypted, so that only its size as it is is known here.
    let data = format!("\n{KEY}\n");
    let size = u32::try_from(data.len()).unwrap();
    let archive = [
        zip(9, 8, [0, 0], "a", data.as_bytes()),
        narrow(size, 7),
        zip(0, 0, [KEY.len(); 2], "b.", KEY.as_bytes()),
        END.to_vec(),
    ]
    .concat();
    check(&archive, &["f!a:2", "f!b.:1"], &["f!a: encrypted, and not looked into"]);
}

#[test]
fn holes_are_no_part_of_what_is_counted() {
    let map = b"2\n512\n100\n4096\n0\n".to_vec();
    let mut data = map;
    data.resize(512, 0);
    data.extend(format!("x\n{KEY}").into_bytes());
    let sparse = [
        pax("GNU.sparse.major", "1"),
        tar(b'0', "a", data.len(), &data),
        file("b", KEY),
    ]
    .concat();
    check(&sparse, &["f!a:2", "f!b:1"], &[]);
    let endless = [
        pax("GNU.sparse.major", "1"),
        tar(b'0', "a", 6, b"99999\n"),
        file("b", KEY),
    ]
    .concat();
    check(&endless, &["f!b:1"], &["f!a: it ends too early"]);
    let mut old = tar(b'S', "a", KEY.len(), b"");
    old[482] = 1;
    sum(&mut old);
    let mut more = vec![0; 1024];
    more[504] = 1;
    let mut text = KEY.as_bytes().to_vec();
    text.resize(512, 0);
    check(&[old, more, text, file("b", KEY)].concat(), &["f!a:1", "f!b:1"], &[]);
}
