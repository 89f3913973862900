use proptest::prelude::*;

use super::*;

#[test]
fn serials_are_positive_and_at_most_20_bytes() {
    assert_eq!(Serial::from_bytes(&[]), Err(SerialError::Zero));
    assert_eq!(Serial::from_bytes(&[0; 20]), Err(SerialError::Zero));
    assert_eq!(Serial::from_bytes(&[0; 21]), Err(SerialError::TooLong { bytes: 21 }));
    assert_eq!(Serial::from_bytes(&[0x80]), Err(SerialError::Negative));
    assert_eq!(Serial::from_bytes(&[0xff; 20]), Err(SerialError::Negative));
    assert_eq!(Serial::from_bytes(&[0x7f; 20]).unwrap().as_bytes(), [0x7f; 20]);
    assert_eq!(Serial::from_bytes(&[0, 0x80]).unwrap().as_bytes(), [0x80]);
}

#[test]
fn serials_are_written_in_lower_case_hex() {
    let serial = Serial::from_bytes(&[0x0a, 0xbc, 0x00]).unwrap();
    assert_eq!(serial.to_string(), "0abc00");
    assert_eq!(format!("{serial:?}"), "Serial(0abc00)");
    assert_eq!(serde_json::to_string(&serial).unwrap(), "\"0abc00\"");
    assert_eq!(serde_json::from_str::<Serial>("\"0abc00\"").unwrap(), serial);
}

#[test]
fn serials_have_one_spelling() {
    for text in [
        "0", "abc", "AB", "0x1", "00ab", "zz", "a ", "+1", "é", "/9", ":9", "`a", "ga", "a/", "ag",
    ] {
        assert_eq!(text.parse::<Serial>(), Err(SerialError::NotHex), "{text:?}");
    }
    assert_eq!("".parse::<Serial>(), Err(SerialError::Zero));
    assert_eq!("00".parse::<Serial>(), Err(SerialError::NotHex));
    assert_eq!("7f".repeat(20).parse::<Serial>(), Serial::from_bytes(&[0x7f; 20]));
    assert_eq!(
        "7f".repeat(21).parse::<Serial>(),
        Err(SerialError::TooLong { bytes: 21 })
    );
    assert!(serde_json::from_str::<Serial>("\"AB\"").is_err());
}

#[test]
fn every_hex_digit_is_read() {
    let bytes = [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef];
    assert_eq!("0123456789abcdef".parse::<Serial>(), Serial::from_bytes(&bytes));
}

#[test]
fn serials_order_as_numbers() {
    let serial = |bytes: &[u8]| Serial::from_bytes(bytes).unwrap();
    assert!(serial(&[0x02]) < serial(&[0x01, 0x00]));
    assert_eq!(serial(&[0x00, 0x02]), serial(&[0x02]));
}

proptest! {
    #[test]
    fn a_serial_comes_back_from_its_text_and_bytes(first in 1u8..=0x7f, rest in prop::collection::vec(any::<u8>(), 0..20)) {
        let bytes: Vec<u8> = std::iter::once(first).chain(rest).collect();
        let serial = Serial::from_bytes(&bytes).unwrap();
        prop_assert_eq!(serial.as_bytes(), &bytes);
        prop_assert_eq!(serial.to_string().parse::<Serial>(), Ok(serial));
    }
}
