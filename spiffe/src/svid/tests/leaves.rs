use super::*;

#[test]
fn a_leaf_that_keeps_every_rule_is_parsed() {
    let key = KeyPair::generate().unwrap();
    let der = forge::sign(&forge::leaf(ID), &key);
    let leaf = Leaf::parse(&der).unwrap();
    assert_eq!(leaf.id().as_str(), ID);
    assert_eq!(leaf.serial().to_string(), "0abc");
    assert_eq!(
        leaf.not_before(),
        Timestamp::from_rfc3339("2026-01-01T00:00:00Z").unwrap()
    );
    assert_eq!(
        leaf.not_after(),
        Timestamp::from_rfc3339("2026-01-01T01:00:00Z").unwrap()
    );
    assert_eq!(leaf.spki(), rcgen::PublicKeyData::subject_public_key_info(&key));
    assert_eq!(
        leaf.sha256(),
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &der).as_ref()
    );
}

#[test]
fn names_of_other_kinds_are_allowed_beside_the_id() {
    let leaf = leaf_with(|params| {
        params
            .subject_alt_names
            .insert(0, SanType::DnsName("orders.acme".try_into().unwrap()));
        params.subject_alt_names.push(SanType::IpAddress([10, 0, 0, 1].into()));
    });
    assert_eq!(leaf.unwrap().id().as_str(), ID);
}

#[test]
fn two_uri_sans_are_refused() {
    for second in ["spiffe://acme/prod/other", ID, "https://acme"] {
        let refused = leaf_with(|params| params.subject_alt_names.push(forge::uri(second)));
        assert_eq!(refused, Err(SvidError::TwoUriSans { count: 2 }), "{second}");
    }
}

#[test]
fn no_uri_san_is_refused() {
    let only_dns = leaf_with(|params| {
        params.subject_alt_names = vec![SanType::DnsName("orders.acme".try_into().unwrap())];
    });
    assert_eq!(only_dns, Err(SvidError::NoUriSan));
    assert_eq!(
        leaf_with(|params| params.subject_alt_names.clear()),
        Err(SvidError::NoUriSan)
    );
}

#[test]
fn a_uri_that_is_no_spiffe_id_is_refused() {
    let refused = leaf_with(|params| params.subject_alt_names = vec![forge::uri("https://acme/x")]);
    assert_eq!(
        refused,
        Err(SvidError::NotSpiffeId {
            source: IdError::Scheme
        })
    );
}

#[test]
fn an_id_without_path_is_refused() {
    let refused = leaf_with(|params| params.subject_alt_names = vec![forge::uri("spiffe://acme")]);
    assert_eq!(refused, Err(SvidError::RootPath));
}

#[test]
fn the_ca_bit_is_refused() {
    let refused = leaf_with(|params| params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained));
    assert_eq!(refused, Err(SvidError::CaBit));
    assert!(leaf_with(|params| params.is_ca = IsCa::ExplicitNoCa).is_ok());
}

#[test]
fn key_usage_has_to_be_there() {
    assert_eq!(
        leaf_with(|params| params.key_usages.clear()),
        Err(SvidError::NoKeyUsage)
    );
}

#[test]
fn key_usage_has_to_be_critical() {
    let digital_signature = [0x03, 0x02, 0x07, 0x80];
    let with = |critical| {
        leaf_with(|params| {
            params.key_usages.clear();
            params.custom_extensions = vec![forge::extension(forge::KEY_USAGE, critical, &digital_signature)];
        })
    };
    assert!(with(true).is_ok());
    assert_eq!(with(false), Err(SvidError::KeyUsageNotCritical));
}

#[test]
fn key_usage_has_to_hold_digital_signature() {
    let refused = leaf_with(|params| params.key_usages = vec![KeyUsagePurpose::KeyEncipherment]);
    assert_eq!(refused, Err(SvidError::NoDigitalSignature));
}

#[test]
fn key_usage_must_not_sign_certificates_or_lists() {
    let refused = leaf_with(|params| params.key_usages.push(KeyUsagePurpose::KeyCertSign));
    assert_eq!(refused, Err(SvidError::KeyCertSign));
    let refused = leaf_with(|params| params.key_usages.push(KeyUsagePurpose::CrlSign));
    assert_eq!(refused, Err(SvidError::CrlSign));
    let allowed = leaf_with(|params| {
        params
            .key_usages
            .extend([KeyUsagePurpose::KeyEncipherment, KeyUsagePurpose::KeyAgreement]);
    });
    assert!(allowed.is_ok());
}

#[test]
fn extended_key_usage_holds_both_uses_or_is_absent() {
    use ExtendedKeyUsagePurpose::{Any, ClientAuth, CodeSigning, ServerAuth};
    let with = |uses: &[ExtendedKeyUsagePurpose]| leaf_with(|params| params.extended_key_usages = uses.to_vec());
    assert!(with(&[]).is_ok());
    assert!(with(&[ClientAuth, CodeSigning, ServerAuth]).is_ok());
    for uses in [vec![ServerAuth], vec![ClientAuth], vec![CodeSigning], vec![Any]] {
        assert_eq!(with(&uses), Err(SvidError::WrongEku), "{uses:?}");
    }
}

#[test]
fn an_empty_subject_wants_a_critical_san() {
    let with = |critical, named: bool| {
        leaf_with(|params| {
            let length = u8::try_from(ID.len()).unwrap();
            let san = [&[0x30, 2 + length, 0x86, length][..], ID.as_bytes()].concat();
            params.subject_alt_names.clear();
            params.custom_extensions = vec![forge::extension(forge::SUBJECT_ALT_NAME, critical, &san)];
            if named {
                params.distinguished_name.push(rcgen::DnType::CommonName, "orders");
            }
        })
    };
    assert!(with(true, false).is_ok());
    assert!(with(false, true).is_ok());
    assert_eq!(with(false, false), Err(SvidError::SanNotCritical));
}

#[test]
fn an_extension_appears_once() {
    let refused = leaf_with(|params| {
        params.custom_extensions = vec![forge::extension(forge::KEY_USAGE, true, &[0x03, 0x02, 0x07, 0x80])];
    });
    assert_eq!(
        refused,
        Err(SvidError::ExtensionTwice {
            oid: "2.5.29.15".to_owned()
        })
    );
}

#[test]
fn an_extension_that_cannot_be_read_is_refused() {
    let refused = leaf_with(|params| {
        params.extended_key_usages.clear();
        params.custom_extensions = vec![forge::extension(forge::EXTENDED_KEY_USAGE, false, &[0x02, 0x01])];
    });
    assert_eq!(
        refused,
        Err(SvidError::ExtensionMalformed {
            oid: "2.5.29.37".to_owned()
        })
    );
}

#[test]
fn a_name_that_cannot_be_read_is_refused() {
    let refused = leaf_with(|params| {
        let uri_that_is_no_text = [0x30, 0x03, 0x86, 0x01, 0xff];
        params.subject_alt_names.clear();
        params.custom_extensions = vec![forge::extension(forge::SUBJECT_ALT_NAME, true, &uri_that_is_no_text)];
    });
    assert_eq!(
        refused,
        Err(SvidError::ExtensionMalformed {
            oid: "2.5.29.17".to_owned()
        })
    );
}

#[test]
fn an_unknown_extension_is_refused_where_it_is_critical() {
    let with = |oid: &[u64], critical| {
        leaf_with(|params| params.custom_extensions = vec![forge::extension(oid, critical, &[0x05, 0x00])])
    };
    assert!(with(&[1, 2, 3, 4], false).is_ok());
    assert_eq!(
        with(&[1, 2, 3, 4], true),
        Err(SvidError::ExtensionUnknownCritical {
            oid: "1.2.3.4".to_owned()
        })
    );
}

#[test]
fn a_validity_does_not_end_before_it_begins() {
    assert_eq!(
        leaf_with(|params| params.not_after = params.not_before - time::Duration::SECOND),
        Err(SvidError::ValidityReversed)
    );
    assert!(leaf_with(|params| params.not_after = params.not_before).is_ok());
}

#[test]
fn a_serial_number_is_positive_and_short() {
    let with = |bytes: &[u8]| {
        leaf_with(|params| params.serial_number = Some(SerialNumber::from_slice(bytes)))
            .map(|leaf| leaf.serial().to_string())
    };
    assert_eq!(with(&[0x7f; 20]), Ok("7f".repeat(20)));
    assert_eq!(
        with(&[0x7f; 21]),
        Err(SvidError::Serial {
            source: SerialError::TooLong { bytes: 21 }
        })
    );
    assert_eq!(
        with(&[0]),
        Err(SvidError::Serial {
            source: SerialError::Zero
        })
    );
}

#[test]
fn only_version_3_is_parsed() {
    let mut der = forge::issue(&forge::leaf(ID));
    let version = [0xa0, 0x03, 0x02, 0x01, 0x02];
    let place = der.windows(version.len()).position(|window| window == version).unwrap();
    der[place + 4] = 1;
    assert_eq!(Leaf::parse(&der), Err(SvidError::NotVersion3));
}

#[test]
fn bytes_after_the_certificate_are_refused() {
    let mut der = forge::issue(&forge::leaf(ID));
    der.extend([0, 0]);
    assert_eq!(Leaf::parse(&der), Err(SvidError::TrailingData { bytes: 2 }));
}

#[test]
fn a_certificate_has_16_kib_and_no_more() {
    assert!(Leaf::parse(&forge::issue_sized(&forge::leaf(ID), 16 * 1024)).is_ok());
    let over = forge::issue_sized(&forge::leaf(ID), 16 * 1024 + 1);
    assert_eq!(Leaf::parse(&over), Err(SvidError::Oversize { bytes: 16 * 1024 + 1 }));
}

#[test]
fn a_cut_certificate_is_refused_at_every_length() {
    let der = forge::issue(&forge::leaf(ID));
    for length in 0..der.len() {
        assert!(
            matches!(Leaf::parse(&der[..length]), Err(SvidError::NotDer { .. })),
            "{length}"
        );
    }
}
