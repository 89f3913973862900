//! What `botmesh check` asks the proxy to look at: who listens where its bots serve, whom it cannot tell apart, and
//! whether a used join token is worth anything.

use std::error::Error as _;
use std::time::Duration;

use ca_api::proxy_admin::{Alike, CalleeFound, CalleeLook, Doctor, ShareLook};
use nix::unistd::User;
use policy::{Likeness, Serve, Target};
use spiffe::id::BotName;
use tokio::time::{Instant, timeout_at};

use crate::callee::CalleeFault;
use crate::proxy::Proxy;

/// How long all callees together are looked at. A listener that takes no connection needs two seconds.
const LOOK: Duration = Duration::from_secs(10);

pub(super) async fn look(proxy: &Proxy) -> Doctor {
    let snapshot = proxy.control.snapshot();
    let claimable: Vec<&BotName> = snapshot.claimable().collect();
    let until = Instant::now() + LOOK;
    let mut callees = Vec::new();
    for bot in claimable {
        let serve = snapshot.mesh.bots().get(bot).and_then(|bot| bot.serve.as_ref());
        for target in serve.into_iter().flat_map(Serve::targets) {
            callees.extend(look_at(proxy, bot, target, until).await);
        }
    }
    let uid_of = |user: &str| User::from_name(user).ok().flatten().map(|user| user.uid.as_raw());
    let alike = snapshot.mesh.indistinct(&proxy.host, uid_of);
    Doctor {
        callees,
        alike: alike
            .into_iter()
            .map(|pair| Alike {
                one: pair.one,
                other: pair.other,
                same_process: pair.likeness == Likeness::SameProcess,
            })
            .collect(),
        token: proxy.control.replay_token().await,
        ledger: proxy.ledger.stats().shares.map(share).into(),
    }
}

/// Looks at one of the places where a bot serves; nothing for one that is not on this host.
async fn look_at(proxy: &Proxy, bot: &BotName, target: &Target, until: Instant) -> Option<CalleeLook> {
    let at = match target {
        Target::Port(port) => format!("127.0.0.1:{port}"),
        Target::Unix(path) => format!("unix:{}", path.display()),
        Target::Elsewhere | Target::Endpoints(_) => return None,
    };
    let looked = timeout_at(until, proxy.callees.look(&proxy.attestor, bot, target)).await;
    let found = match looked {
        Ok(Ok(())) => CalleeFound::Bot,
        Ok(Err(fault)) => found(&fault),
        Err(_elapsed) => CalleeFound::Nobody("looking took too long".to_owned()),
    };
    let bot = bot.clone();
    Some(CalleeLook { bot, at, found })
}

fn share(share: audit::budget::Share) -> ShareLook {
    ShareLook {
        share: share.class.to_owned(),
        spent: share.spent,
        most: share.most,
    }
}

fn found(fault: &CalleeFault) -> CalleeFound {
    let mut why = fault.to_string();
    let mut source = fault.source();
    while let Some(error) = source {
        why = format!("{why}: {error}");
        source = error.source();
    }
    match fault {
        CalleeFault::Mismatch { .. } => CalleeFound::Other(why),
        CalleeFault::Connect { .. }
        | CalleeFault::Stream { .. }
        | CalleeFault::Full
        | CalleeFault::Target
        | CalleeFault::NotHttp { .. }
        | CalleeFault::Interim
        | CalleeFault::Gone { .. }
        | CalleeFault::Slow
        | CalleeFault::Length
        | CalleeFault::Caller { .. } => CalleeFound::Nobody(why),
    }
}
