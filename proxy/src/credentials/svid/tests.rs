//! By a signer of the tests' own and by tokio's paused clock.

use std::sync::atomic::{AtomicUsize, Ordering};

use spiffe::time::Timestamp;
use tokio::time::Instant;

use super::*;

const LIFE: Duration = Duration::from_mins(5);

/// Why it does not sign.
type Refusal = fn() -> MintError;

/// A CA that signs `svid-N`, or does not.
#[derive(Clone, Default)]
struct Ca {
    asked: Arc<AtomicUsize>,
    answer: Arc<Mutex<Option<Refusal>>>,
}

impl Ca {
    fn identity(&self) -> Identity {
        let ca = self.clone();
        let signer = Signer(Arc::new(move |bot, audience| {
            assert_eq!((bot.as_str(), &*audience), ("prod/support", "api"));
            let number = ca.asked.fetch_add(1, Ordering::Relaxed) + 1;
            let refused = *ca.answer.lock().unwrap();
            Box::pin(async move {
                match refused {
                    Some(error) => Err(error()),
                    None => Ok(JwtSvid {
                        token: Secret::new(format!("svid-number-{number}").into_bytes()).unwrap(),
                        life: LIFE,
                    }),
                }
            })
        }));
        Identity::new(signer, BotName::parse("prod/support").unwrap(), "api".into())
    }

    fn says(&self, answer: Option<Refusal>) {
        *self.answer.lock().unwrap() = answer;
    }
}

fn now() -> Moment {
    Moment {
        clock: Timestamp::from_unix_seconds(1_000_000),
        steady: Instant::now(),
    }
}

async fn exchanged(identity: &Identity) -> Result<String, String> {
    let given = identity.to_exchange(now()).await;
    given
        .map(|secret| String::from_utf8(secret.bytes().to_vec()).unwrap())
        .map_err(|error| error.to_string())
}

#[tokio::test(start_paused = true)]
async fn one_is_kept_for_half_of_its_life_and_shown_to_a_provider_once() {
    let ca = Ca::default();
    let identity = ca.identity();
    assert_eq!(exchanged(&identity).await.unwrap(), "svid-number-1");
    tokio::time::advance(LIFE / 2 - Duration::from_secs(1)).await;
    assert_eq!(
        exchanged(&identity).await.unwrap(),
        "svid-number-1",
        "nobody has seen it"
    );
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(
        exchanged(&identity).await.unwrap(),
        "svid-number-2",
        "half of its life is over"
    );
    identity.was_shown();
    assert_eq!(
        exchanged(&identity).await.unwrap(),
        "svid-number-3",
        "a provider has seen it"
    );
}

#[tokio::test(start_paused = true)]
async fn while_the_ca_is_away_the_kept_one_is_used_to_its_end_and_not_beyond() {
    let ca = Ca::default();
    let identity = ca.identity();
    assert_eq!(exchanged(&identity).await.unwrap(), "svid-number-1");
    identity.was_shown();
    ca.says(Some(|| MintError::NoStream));
    tokio::time::advance(LIFE - Duration::from_secs(1)).await;
    assert_eq!(exchanged(&identity).await.unwrap(), "svid-number-1");
    assert!(!identity.drop_ended(now()));
    tokio::time::advance(Duration::from_secs(1)).await;
    let error = exchanged(&identity).await.unwrap_err();
    assert_eq!(error, MintError::NoStream.to_string());
    assert!(identity.drop_ended(now()) && identity.secret().is_none());
}

#[tokio::test(start_paused = true)]
async fn what_the_ca_refuses_ends_what_is_kept() {
    let ca = Ca::default();
    let identity = ca.identity();
    assert_eq!(exchanged(&identity).await.unwrap(), "svid-number-1");
    identity.was_shown();
    ca.says(Some(|| MintError::Refused {
        message: "quarantined".to_owned(),
    }));
    assert!(exchanged(&identity).await.unwrap_err().contains("quarantined"));
    assert!(identity.secret().is_none());
    ca.says(Some(|| MintError::NoStream));
    assert!(exchanged(&identity).await.is_err());
}

#[test]
fn of_a_jwt_the_signature_is_looked_for_and_of_anything_else_all_of_it() {
    let end = "s".repeat(86);
    let of =
        |text: &str| String::from_utf8(signature(&Secret::new(text.as_bytes().to_vec()).unwrap()).to_vec()).unwrap();
    assert_eq!(of(&format!("eyJh.eyJi.{end}")), end);
    for whole in [
        "sk-ant-oat01-0123456789.x".to_owned(),
        format!("eyJh.{end}"),
        format!("eyJh.eyJi.eyJj.{end}"),
        format!("xyJh.eyJi.{end}"),
        // Too short for one: the rest is looked for too.
        "eyJh.eyJi.short".to_owned(),
    ] {
        assert_eq!(of(&whole), whole);
    }
}
