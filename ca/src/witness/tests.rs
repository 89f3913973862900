//! When a witness is asked, and when it is left in peace.

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_millis(1_700_000_000_000 + seconds * 1000)
}

fn witness() -> Witness {
    let key = audit::CosignerKey::generate(KeyName::parse("w.example/w1").unwrap()).unwrap();
    let config = WitnessConfig {
        url: "http://127.0.0.1:1".parse().unwrap(),
        key: key.verifier(),
        ca: None,
    };
    Witnesses::new(vec![config]).0.pop().unwrap()
}

fn ledger(name: &str) -> KeyName {
    KeyName::parse(name).unwrap()
}

fn word(witness: &Witness, name: &str, seconds: i64) -> &'static str {
    epoch_word(witness, name, name, seconds)
}

fn epoch_word(witness: &Witness, name: &str, epoch: &str, seconds: i64) -> &'static str {
    let begun = witness.begin(&ledger(name), &ledger(epoch), at(seconds));
    begun.map_or_else(|error| error.as_str(), |()| "asked")
}

fn ended(witness: &Witness, name: &str, source: NotCosigned, seconds: i64) {
    let answered = Err(NotWitnessed::Answer { source });
    witness.ended(&ledger(name), &ledger(name), &answered, at(seconds));
}

#[test]
fn a_witness_hears_of_a_ledger_three_times_a_minute_at_most() {
    let witness = witness();
    let words: Vec<_> = (0..5).map(|second| word(&witness, "a", second)).collect();
    assert_eq!(words, ["asked", "asked", "asked", "too_soon", "too_soon"]);
    assert_eq!(word(&witness, "b", 5), "asked", "each ledger has its own");
    assert_eq!(word(&witness, "a", 59), "too_soon");
    assert_eq!(word(&witness, "a", 60), "asked");
    assert_eq!(word(&witness, "a", -1), "asked", "a clock that went back stops nothing");
}

#[test]
fn epochs_that_follow_each_other_make_no_more_questions() {
    let witness = witness();
    let words: Vec<_> = (2..6)
        .map(|epoch| epoch_word(&witness, "a", &format!("a/epoch/{epoch}"), epoch))
        .collect();
    assert_eq!(words, ["asked", "asked", "asked", "too_soon"]);
}

#[test]
fn one_that_is_away_is_left_in_peace_for_longer_and_longer() {
    let witness = witness();
    let mut now = 0;
    for wait in [10, 20, 40, 80, 160, 320, 600, 600] {
        assert_eq!(word(&witness, &format!("at-{now}"), now), "asked");
        ended(&witness, "a", NotCosigned::Away { status: 503 }, now);
        assert_eq!(witness.away().unwrap().since, at(0));
        assert_eq!(word(&witness, "b", now + wait - 1), "away");
        now += wait;
    }
    ended(&witness, "a", NotCosigned::Behind { size: 1 }, now);
    assert_eq!(witness.away(), None, "it answers");
    assert_eq!(word(&witness, "c", now), "asked");
}

#[test]
fn answers_that_nothing_can_be_made_of_count_as_away() {
    let not_signed = NotCosigned::NotSigned {
        source: audit::note::NoteError::Text,
    };
    for source in [
        NotCosigned::Unreadable { status: 200 },
        not_signed,
        NotCosigned::Clock { at: at(0) },
    ] {
        let witness = witness();
        ended(&witness, "a", source, 0);
        assert_eq!(word(&witness, "b", 1), "away");
    }
    let witness = witness();
    let failed = Err(NotWitnessed::Ask { source: AskError::Slow });
    witness.ended(&ledger("a"), &ledger("a"), &failed, at(0));
    assert_eq!(
        witness.away().unwrap().why,
        "ask the witness: there was no answer for 10 s"
    );
}

#[test]
fn a_ledger_that_a_witness_does_not_know_is_told_again_later_and_others_are_told_meanwhile() {
    for (source, wanted) in [
        (NotCosigned::UnknownLedger { origin: "a".to_owned() }, "unknown_ledger"),
        (NotCosigned::OtherKey { origin: "a".to_owned() }, "other_key"),
        (NotCosigned::SetBack { size: 2, told: 1 }, "set_back"),
        (NotCosigned::Forked { size: 1 }, "forked"),
    ] {
        let witness = witness();
        assert_eq!(word(&witness, "a", 0), "asked");
        ended(&witness, "a", source, 0);
        assert_eq!(witness.away(), None);
        assert_eq!(word(&witness, "a", 599), wanted);
        assert_eq!(word(&witness, "b", 599), "asked");
        assert_eq!(
            epoch_word(&witness, "a", "a/epoch/2", 599),
            "asked",
            "a new epoch is another ledger"
        );
        assert_eq!(word(&witness, "a", 600), "asked");
    }
}

#[test]
fn ledgers_that_are_quiet_are_forgotten_where_there_are_too_many() {
    let witness = witness();
    for number in 0..LEDGERS_MAX {
        assert_eq!(word(&witness, &number.to_string(), 0), "asked");
    }
    assert_eq!(word(&witness, "one-more", 10), "busy");
    assert_eq!(word(&witness, "7", 10), "asked", "who is known is asked");
    let later = i64::try_from((10 * MINUTE).as_secs()).unwrap() + 20;
    assert_eq!(word(&witness, "another", later), "asked");
    assert!(witness.state().ledgers.len() < LEDGERS_MAX);
}

#[test]
fn the_own_ledger_is_as_old_as_with_the_witness_that_is_behind() {
    let none = Witnesses::new(Vec::new());
    assert_eq!(none.own_oldest(), None);
    let witnesses = Witnesses(vec![witness(), witness()]);
    assert_eq!(witnesses.own_oldest(), Some(Timestamp::from_unix_millis(0)));
    witnesses.0[0].cosigned_own(at(7));
    assert_eq!(witnesses.own_oldest(), Some(Timestamp::from_unix_millis(0)));
    witnesses.0[1].cosigned_own(at(5));
    assert_eq!(witnesses.own_oldest(), Some(at(5)));
}
