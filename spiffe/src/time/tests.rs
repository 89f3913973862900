use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn at(text: &str) -> Timestamp {
    Timestamp::from_rfc3339(text).unwrap()
}

mod timestamps {
    use super::*;

    #[test]
    fn are_written_in_rfc_3339_with_milliseconds() {
        assert_eq!(Timestamp::from_unix_millis(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(
            Timestamp::from_unix_millis(1_796_148_000_007).to_string(),
            "2026-12-01T18:00:00.007Z"
        );
        assert_eq!(Timestamp::from_unix_millis(-1).to_string(), "1969-12-31T23:59:59.999Z");
        assert_eq!(
            format!("{:?}", Timestamp::from_unix_millis(0)),
            "Timestamp(1970-01-01T00:00:00.000Z)"
        );
    }

    #[test]
    fn are_read_with_any_offset_and_precision() {
        assert_eq!(
            at("2026-12-01T18:00:00Z"),
            Timestamp::from_unix_millis(1_796_148_000_000)
        );
        assert_eq!(at("2026-12-01T19:30:00+01:30"), at("2026-12-01T18:00:00Z"));
        assert_eq!(at("1970-01-01T00:00:00.0019Z").unix_millis(), 1);
        assert_eq!(at("1969-12-31T23:59:59.9999Z").unix_millis(), -1);
    }

    #[test]
    fn are_not_read_from_other_forms() {
        for text in [
            "",
            "2026-12-01",
            "2026-12-01T18:00:00",
            "2026-02-30T00:00:00Z",
            "1796148000",
        ] {
            let error = Timestamp::from_rfc3339(text).unwrap_err();
            assert!(error.to_string().contains("RFC 3339"), "{error}");
        }
    }

    #[test]
    fn count_whole_seconds_downwards() {
        assert_eq!(Timestamp::from_unix_millis(1999).unix_seconds(), 1);
        assert_eq!(Timestamp::from_unix_millis(-1).unix_seconds(), -1);
        assert_eq!(Timestamp::from_unix_seconds(7).unix_millis(), 7000);
    }

    #[test]
    fn saturate_at_the_years_of_rfc_3339() {
        assert_eq!(Timestamp::MIN.to_string(), "0000-01-01T00:00:00.000Z");
        assert_eq!(Timestamp::MAX.to_string(), "9999-12-31T23:59:59.999Z");
        assert_eq!(Timestamp::from_unix_millis(i64::MIN), Timestamp::MIN);
        assert_eq!(Timestamp::from_unix_millis(i64::MAX), Timestamp::MAX);
        assert_eq!(Timestamp::from_unix_seconds(i64::MAX), Timestamp::MAX);
        assert_eq!(Timestamp::MAX + Duration::from_millis(1), Timestamp::MAX);
        assert_eq!(Timestamp::from_unix_millis(0) + Duration::MAX, Timestamp::MAX);
        assert_eq!(Timestamp::MIN - Duration::from_millis(1), Timestamp::MIN);
        assert_eq!(Timestamp::from_unix_millis(0) - Duration::MAX, Timestamp::MIN);
    }

    #[test]
    fn move_by_durations() {
        let start = Timestamp::from_unix_millis(5);
        assert_eq!(start + Duration::from_millis(2), Timestamp::from_unix_millis(7));
        assert_eq!(start - Duration::from_millis(2), Timestamp::from_unix_millis(3));
        assert_eq!(
            (start + Duration::from_secs(1)).duration_since(start),
            Duration::from_secs(1)
        );
        assert_eq!(start.duration_since(start + Duration::from_secs(1)), Duration::ZERO);
    }

    #[test]
    fn are_strings_in_json() {
        let time = at("2026-12-01T18:00:00.250Z");
        let json = serde_json::to_string(&time).unwrap();
        assert_eq!(json, "\"2026-12-01T18:00:00.250Z\"");
        assert_eq!(serde_json::from_str::<Timestamp>(&json).unwrap(), time);
        assert!(serde_json::from_str::<Timestamp>("\"tomorrow\"").is_err());
        assert!(serde_json::from_str::<Timestamp>("5").is_err());
    }

    proptest! {
        #[test]
        fn come_back_from_their_text(millis in -62_167_219_200_000i64..=253_402_300_799_999) {
            let time = Timestamp::from_unix_millis(millis);
            prop_assert_eq!(time.unix_millis(), millis);
            prop_assert_eq!(time.to_string().parse::<Timestamp>().unwrap(), time);
        }
    }
}

mod clocks {
    use super::*;

    const START: Timestamp = Timestamp::from_unix_millis(1_000_000);

    /// Polls a future once.
    fn is_ready(future: std::pin::Pin<&mut impl Future<Output = ()>>) -> bool {
        future
            .poll(&mut std::task::Context::from_waker(std::task::Waker::noop()))
            .is_ready()
    }

    #[test]
    fn that_are_fixed_stand_until_the_hand_moves() {
        let (clock, hand) = Clock::fixed(START);
        let copy = clock.clone();
        assert_eq!(clock.now(), START);
        hand.advance(Duration::from_secs(1));
        assert_eq!(copy.now(), START + Duration::from_secs(1));
        hand.set(START);
        assert_eq!(copy.now(), START);
    }

    #[test]
    fn wake_waiters_at_the_deadline_and_not_before() {
        let (clock, hand) = Clock::fixed(START);
        let deadline = START + Duration::from_secs(10);
        let mut until = std::pin::pin!(clock.sleep_until(deadline));
        let mut span = std::pin::pin!(clock.sleep(Duration::from_secs(10)));
        assert!(!is_ready(until.as_mut()));
        assert!(!is_ready(span.as_mut()));
        hand.set(deadline - Duration::from_millis(1));
        assert!(!is_ready(until.as_mut()));
        assert!(!is_ready(span.as_mut()));
        hand.set(deadline);
        assert!(is_ready(until.as_mut()));
        assert!(is_ready(span.as_mut()));
    }

    #[test]
    fn let_a_past_deadline_through_at_once() {
        let (clock, _hand) = Clock::fixed(START);
        assert!(is_ready(std::pin::pin!(clock.sleep_until(START))));
        assert!(is_ready(std::pin::pin!(Clock::system().sleep_until(START))));
    }

    #[test]
    fn without_a_hand_stand_for_ever() {
        let (clock, hand) = Clock::fixed(START);
        drop(hand);
        assert_eq!(clock.now(), START);
        assert!(!is_ready(std::pin::pin!(clock.sleep(Duration::from_secs(1)))));
    }

    #[tokio::test]
    async fn of_the_system_move_by_themselves() {
        let clock = Clock::system();
        let start = clock.now();
        assert!(start > Timestamp::from_rfc3339("2025-01-01T00:00:00Z").unwrap());
        let deadline = start + Duration::from_millis(15);
        clock.sleep_until(deadline).await;
        assert!(clock.now() >= deadline);
        let began = tokio::time::Instant::now();
        clock.sleep(Duration::from_millis(15)).await;
        assert!(began.elapsed() >= Duration::from_millis(15));
    }
}

#[cfg(feature = "test-clock")]
mod followed_clocks {
    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixListener;

    use super::*;

    async fn follow(first: &[u8]) -> (Result<Clock, FollowError>, tokio::net::UnixStream) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("clock.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(first).await.unwrap();
            stream
        };
        tokio::join!(Clock::follow(&path), serve)
    }

    #[tokio::test]
    async fn show_each_time_that_they_are_sent() {
        let (clock, mut test) = follow(b"set 5000\n").await;
        let clock = clock.unwrap();
        assert_eq!(clock.now().unix_millis(), 5000);
        test.write_all(b"set 6000\nset 7000\n").await.unwrap();
        clock.sleep_until(Timestamp::from_unix_millis(7000)).await;
        assert_eq!(clock.now().unix_millis(), 7000);
    }

    #[tokio::test]
    async fn stand_still_when_the_test_is_gone() {
        let (clock, test) = follow(b"set 5000\n").await;
        drop(test);
        let clock = clock.unwrap();
        let end = clock.sleep_until(Timestamp::from_unix_millis(5001));
        assert!(tokio::time::timeout(Duration::from_millis(20), end).await.is_err());
        assert_eq!(clock.now().unix_millis(), 5000);
    }

    #[tokio::test]
    async fn need_a_first_line_of_the_right_form() {
        for line in ["set x\n", "5000\n", "set 00000000000000000000000000005\n"] {
            let (clock, _test) = follow(line.as_bytes()).await;
            assert!(matches!(clock, Err(FollowError::FirstLine { .. })), "{line:?}");
        }
        assert!(matches!(
            Clock::follow("/nowhere/clock.sock").await,
            Err(FollowError::Connect { .. })
        ));
    }
}
