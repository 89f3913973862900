//! Proofs in band: what one proves, and each reason why one proves nothing.

use proptest::prelude::*;
use spiffe::svid::CERTIFICATE_BYTES_MAX;
use spiffe::time::Timestamp;

use super::forge::date;
use super::*;

const HOUR: Duration = Duration::from_secs(3600);

/// A connection of `prod/checkout` to `prod/orders`, and how both see it.
struct Connection {
    mesh: Mesh,
    client: Exporter,
    server: Exporter,
}

impl Connection {
    fn new() -> Self {
        let mesh = Mesh::new();
        let ends = mesh.shake().established();
        let empty = Some(&[][..]);
        let client = ends
            .client
            .export_keying_material([0; EXPORTER_BYTES], reproof_label().as_bytes(), empty);
        let server = ends
            .server
            .export_keying_material([0; EXPORTER_BYTES], reproof_label().as_bytes(), empty);
        Self {
            mesh,
            client: Exporter::new(client.unwrap()),
            server: Exporter::new(server.unwrap()),
        }
    }

    /// The SVID of `id` that follows, and ends an hour after the first.
    fn next(&self, id: &SpiffeId) -> Svid {
        svid_until(&self.mesh.ca, id, NOT_AFTER + HOUR)
    }

    /// What the server makes of a proof by the client.
    fn judge(&self, proof: &Reproof) -> Result<Leaf, ReproofRefusal> {
        self.judge_at(proof, NOW)
    }

    fn judge_at(&self, proof: &Reproof, now: Timestamp) -> Result<Leaf, ReproofRefusal> {
        let id = checkout();
        let session = Session {
            peer: Role::Client,
            id: &id,
            not_after: NOT_AFTER,
            exporter: &self.server,
        };
        proof.verify(session, &self.mesh.bundle, now)
    }

    fn refusal(&self, proof: &Reproof) -> &'static str {
        self.judge(proof).unwrap_err().reason()
    }
}

fn svid_until(ca: &Ca, id: &SpiffeId, not_after: Timestamp) -> Svid {
    let key = PrivateKey::generate().unwrap();
    Svid::new(ca.chain(&key, id, |params| params.not_after = date(not_after)), key).unwrap()
}

fn proof(svid: &Svid, role: Role, exporter: &Exporter) -> Reproof {
    Reproof::make(svid, role, exporter).unwrap()
}

#[test]
fn the_svid_that_follows_is_proved_on_the_same_connection() {
    let connection = Connection::new();
    let next = connection.next(&checkout());
    let proved = connection
        .judge(&proof(&next, Role::Client, &connection.client))
        .unwrap();
    assert_eq!(
        (proved.serial(), proved.not_after()),
        (next.leaf().serial(), NOT_AFTER + HOUR)
    );
}

#[test]
fn both_ends_export_the_same_and_no_other_connection_does() {
    let (one, other) = (Connection::new(), Connection::new());
    assert_eq!(one.client, one.server);
    assert_ne!(one.client, other.client);
    assert_eq!(format!("{:?}", one.client), "Exporter(redacted)");
}

#[test]
fn a_proof_is_worth_nothing_on_another_connection() {
    let (connection, other) = (Connection::new(), Connection::new());
    let replayed = proof(&connection.next(&checkout()), Role::Client, &other.client);
    assert_eq!(connection.refusal(&replayed), "bad_signature");
}

#[test]
fn a_proof_of_another_id_is_refused() {
    let connection = Connection::new();
    let other = proof(&connection.next(&orders()), Role::Client, &connection.client);
    assert_eq!(connection.refusal(&other), "wrong_id");
}

#[test]
fn a_proof_of_the_other_end_is_refused_whatever_it_says() {
    let connection = Connection::new();
    let next = connection.next(&checkout());
    let mut sent_back = proof(&next, Role::Server, &connection.client);
    assert_eq!(connection.refusal(&sent_back), "other_role");
    // Relabelled, its signature is over the other role.
    sent_back = Reproof::decode(&relabelled(&sent_back)).unwrap();
    assert_eq!(connection.refusal(&sent_back), "bad_signature");
}

fn relabelled(proof: &Reproof) -> Vec<u8> {
    let mut body = proof.encode().split_off(4);
    body[1] = 1;
    body
}

#[test]
fn an_svid_that_does_not_end_later_is_refused() {
    let connection = Connection::new();
    for not_after in [NOT_AFTER, NOT_AFTER - Duration::from_secs(1)] {
        let same = svid_until(&connection.mesh.ca, &checkout(), not_after);
        let old = proof(&same, Role::Client, &connection.client);
        assert_eq!(connection.refusal(&old), "not_newer");
    }
}

#[test]
fn an_svid_that_is_not_valid_now_is_refused() {
    let connection = Connection::new();
    let next = proof(&connection.next(&checkout()), Role::Client, &connection.client);
    let at = |now| connection.judge_at(&next, now).unwrap_err();
    let late = at(NOT_AFTER + HOUR + Duration::from_secs(1));
    assert_eq!(late.reason(), "expired");
    let early = at(NOT_BEFORE - Duration::from_secs(1));
    assert_eq!(early.reason(), "not_yet_valid");
    assert!(!late.may_pass_later() && early.may_pass_later());
}

#[test]
fn a_chain_to_another_root_is_refused_until_the_bundle_has_it() {
    let connection = Connection::new();
    let stranger = Ca::root("acme");
    let next = svid_until(&stranger, &checkout(), NOT_AFTER + HOUR);
    let next = proof(&next, Role::Client, &connection.client);
    let refused = connection.judge(&next).unwrap_err();
    assert_eq!(refused.reason(), "untrusted_chain");
    assert!(refused.may_pass_later());
    let id = checkout();
    let session = Session {
        peer: Role::Client,
        id: &id,
        not_after: NOT_AFTER,
        exporter: &connection.server,
    };
    let both = forge::bundle("acme", &[&connection.mesh.ca, &stranger]);
    assert!(next.verify(session, &both, NOW).is_ok());
}

#[test]
fn a_signature_by_another_key_is_refused() {
    let connection = Connection::new();
    let (next, other) = (connection.next(&checkout()), connection.next(&checkout()));
    let mut body = proof(&next, Role::Client, &connection.client).encode().split_off(4);
    let foreign = proof(&other, Role::Client, &connection.client).encode().split_off(4);
    // The chain of one, the signature of the other.
    let cut = |body: &[u8]| 3 + 4 + usize::try_from(u32::from_be_bytes(body[3..7].try_into().unwrap())).unwrap();
    body.truncate(cut(&body));
    body.extend_from_slice(&foreign[cut(&foreign)..]);
    assert_eq!(connection.refusal(&Reproof::decode(&body).unwrap()), "bad_signature");
}

#[test]
fn a_leaf_that_breaks_a_rule_is_refused() {
    let connection = Connection::new();
    let key = PrivateKey::generate().unwrap();
    let chain = connection.mesh.ca.chain(&key, &checkout(), |params| {
        params.not_after = date(NOT_AFTER + HOUR);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    });
    let mut body = vec![1, 1, 1];
    body.extend_from_slice(&u32::try_from(chain[0].len()).unwrap().to_be_bytes());
    body.extend_from_slice(&chain[0]);
    body.extend_from_slice(&[1, 0]);
    assert_eq!(connection.refusal(&Reproof::decode(&body).unwrap()), "wrong_eku");
}

/// The body of a proof with these parts.
fn body(version: u8, role: u8, chain: &[usize], signature: usize) -> Vec<u8> {
    let mut body = vec![version, role, u8::try_from(chain.len()).unwrap()];
    for bytes in chain {
        body.extend_from_slice(&u32::try_from(*bytes).unwrap().to_be_bytes());
        body.extend(std::iter::repeat_n(7, *bytes));
    }
    body.push(u8::try_from(signature).unwrap());
    body.extend(std::iter::repeat_n(9, signature));
    body
}

#[test]
fn every_bound_of_the_message_is_kept() {
    let largest = body(1, 2, &[CERTIFICATE_BYTES_MAX; CHAIN_CERTIFICATES_MAX], 72);
    assert!(largest.len() <= REPROOF_BYTES_MAX);
    assert_eq!(Reproof::decode(&largest).unwrap().encode().split_off(4), largest);
    for (bytes, error) in [
        (body(0, 1, &[1], 8), ReproofError::Version),
        (body(2, 1, &[1], 8), ReproofError::Version),
        (body(1, 0, &[1], 8), ReproofError::Role),
        (body(1, 3, &[1], 8), ReproofError::Role),
        (body(1, 1, &[], 8), ReproofError::Chain),
        (body(1, 1, &[1; CHAIN_CERTIFICATES_MAX + 1], 8), ReproofError::Chain),
        (body(1, 1, &[0], 8), ReproofError::Chain),
        (body(1, 1, &[CERTIFICATE_BYTES_MAX + 1], 8), ReproofError::Chain),
        (body(1, 1, &[1], 0), ReproofError::Signature),
        (body(1, 1, &[1], 73), ReproofError::Signature),
        ([body(1, 1, &[1], 8), vec![0]].concat(), ReproofError::Trailing),
    ] {
        assert_eq!(Reproof::decode(&bytes), Err(error), "{error}");
    }
    let whole = body(1, 1, &[3, 2], 8);
    for cut in 0..whole.len() {
        assert_eq!(Reproof::decode(&whole[..cut]), Err(ReproofError::Short), "{cut} bytes");
    }
}

#[test]
fn a_proof_that_announces_too_much_is_refused_before_it_comes() {
    let mut reader = ReproofReader::default();
    reader.push(&u32::try_from(REPROOF_BYTES_MAX + 1).unwrap().to_be_bytes());
    assert_eq!(reader.next_proof(), Err(ReproofError::TooLong));
    let mut reader = ReproofReader::default();
    reader.push(&u32::try_from(REPROOF_BYTES_MAX).unwrap().to_be_bytes());
    assert_eq!(reader.next_proof(), Ok(None));
}

fn parts() -> impl Strategy<Value = (u8, Vec<Vec<u8>>, Vec<u8>)> {
    let certificate = prop::collection::vec(any::<u8>(), 1..200);
    let chain = prop::collection::vec(certificate, 1..=CHAIN_CERTIFICATES_MAX);
    (1..=2u8, chain, prop::collection::vec(any::<u8>(), 1..=72))
}

fn written((role, chain, signature): &(u8, Vec<Vec<u8>>, Vec<u8>)) -> Vec<u8> {
    let mut body = vec![1, *role, u8::try_from(chain.len()).unwrap()];
    for der in chain {
        body.extend_from_slice(&u32::try_from(der.len()).unwrap().to_be_bytes());
        body.extend_from_slice(der);
    }
    body.push(u8::try_from(signature.len()).unwrap());
    body.extend_from_slice(signature);
    body
}

proptest! {
    #[test]
    fn a_stream_of_proofs_reads_back_however_it_is_cut(
        proofs in prop::collection::vec(parts(), 1..4),
        piece in 1..300usize,
    ) {
        let bodies: Vec<_> = proofs.iter().map(written).collect();
        let expected: Vec<_> = bodies.iter().map(|body| Reproof::decode(body).unwrap()).collect();
        let mut stream = Vec::new();
        for (proof, body) in expected.iter().zip(&bodies) {
            let encoded = proof.encode();
            prop_assert_eq!(&encoded[4..], &body[..]);
            stream.extend(encoded);
        }
        let (mut reader, mut read) = (ReproofReader::default(), Vec::new());
        for piece in stream.chunks(piece) {
            reader.push(piece);
            while let Some(proof) = reader.next_proof().unwrap() {
                read.push(proof);
            }
        }
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn no_bytes_panic_and_what_is_read_is_written_the_same(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(proof) = Reproof::decode(&bytes) {
            prop_assert_eq!(&proof.encode()[4..], &bytes[..]);
        }
        let mut reader = ReproofReader::default();
        reader.push(&bytes);
        while let Ok(Some(_)) = reader.next_proof() {}
    }
}
