//! What is due to a host, as flags over the newest state.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use ca_api::Generation;
use ca_api::node::ca_message::Message;
use ca_api::node::{BotEndpoints, Bundle, CaTime, CredentialOrder, Endpoints, Hello, Quarantines, Slice};
use ca_api::rotation::Phase;
use policy::CredentialName;
use spiffe::id::HostName;

use crate::Digest;
use crate::core::Core;
use crate::node::endpoints::HostSlice;
use crate::rotation::order;
use crate::store::RotationRow;

/// How many slices are remembered as sent; a host that is behind by more is believed about none of those.
const SENT_MAX: usize = 64;

/// What a receipt is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receipt {
    /// It is for the newest slice.
    Current,
    /// It is for a slice that a newer one has overtaken since.
    Overtaken,
    /// It is for none that was sent.
    NeverSent,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Outbox {
    host: HostName,
    bundle: bool,
    quarantines: bool,
    slice: bool,
    endpoints: bool,
    credentials: bool,
    questions: bool,
    time: bool,
    /// The newest slice, sent or known to be there already.
    current: Option<HostSlice>,
    before: Option<Arc<policy::Mesh>>,
    /// The newest slices that were sent, oldest first.
    slices_sent: VecDeque<(Generation, Digest)>,
    /// What the host said that it has applied: nothing of that need be sent.
    resumed: Option<(Generation, Vec<u8>)>,
    endpoints_sent: Option<(Generation, Vec<BotEndpoints>)>,
    quarantines_sent: Option<Generation>,
    /// The newest order for each credential.
    orders_sent: BTreeMap<CredentialName, (u64, Phase)>,
    /// The newest question about its ledger that the host was asked.
    question_sent: u64,
}

impl Outbox {
    /// Everything is due at the beginning, but what the host has kept.
    /// Questions that were asked before are not for this stream.
    pub(super) fn new(host: HostName, hello: &Hello, question_sent: u64) -> Self {
        let resumed = hello
            .applied
            .map(|applied| (Generation::from(applied), hello.applied_sha256.clone()));
        Self {
            host,
            bundle: true,
            quarantines: true,
            slice: true,
            endpoints: true,
            credentials: true,
            questions: true,
            time: true,
            current: None,
            before: None,
            slices_sent: VecDeque::new(),
            resumed,
            endpoints_sent: None,
            quarantines_sent: None,
            orders_sent: BTreeMap::new(),
            question_sent,
        }
    }

    pub(super) fn live_changed(&mut self) {
        self.slice = true;
        self.endpoints = true;
    }

    pub(super) fn routes_changed(&mut self) {
        self.endpoints = true;
    }

    /// Hosts that are cut off are nobody's endpoints either, and are told nothing more until they are released.
    pub(super) fn quarantines_changed(&mut self) {
        self.quarantines = true;
        self.slice = true;
        self.endpoints = true;
        self.credentials = true;
    }

    pub(super) fn rotations_changed(&mut self) {
        self.credentials = true;
    }

    pub(super) fn time_due(&mut self) {
        self.time = true;
    }

    pub(super) const fn questions_changed(&mut self) {
        self.questions = true;
    }

    pub(super) fn is_due(&self) -> bool {
        self.bundle
            || self.quarantines
            || self.slice
            || self.endpoints
            || self.credentials
            || self.questions
            || self.time
    }

    /// Makes the next message that is due. `None`: a look at the state showed that
    /// nothing is.
    pub(super) fn next(&mut self, core: &Arc<Core>) -> Option<Message> {
        let generation = core.generation().into();
        // Before anything else: a policy must never be in force a moment before them.
        if std::mem::take(&mut self.quarantines) {
            return Some(Message::Quarantines(self.next_quarantines(core)));
        }
        if std::mem::take(&mut self.bundle) {
            return Some(Message::Bundle(Bundle {
                generation: Some(generation),
                jwks: core.bundle.to_jwks(),
            }));
        }
        let cut_off = core.quarantines.list().has_host(&self.host);
        if std::mem::take(&mut self.slice)
            && !cut_off
            && let Some(slice) = self.next_slice(core)
        {
            return Some(Message::Slice(slice));
        }
        if std::mem::take(&mut self.endpoints)
            && !cut_off
            && let Some(endpoints) = self.next_endpoints(core)
        {
            return Some(Message::Endpoints(endpoints));
        }
        if std::mem::take(&mut self.credentials)
            && !cut_off
            && let Some(order) = self.next_order(core)
        {
            // There may be another one.
            self.credentials = true;
            return Some(Message::CredentialOrder(order));
        }
        // Quarantined hosts are asked too: what they did is what people want to know.
        if std::mem::take(&mut self.questions)
            && let Some(question) = core.questions.next(&self.host, self.question_sent)
        {
            self.question_sent = question.id;
            // There may be another one.
            self.questions = true;
            return Some(Message::LedgerQuestion(question));
        }
        let time = std::mem::take(&mut self.time);
        time.then(|| {
            Message::CaTime(CaTime {
                unix_ms: core.now().unix_millis(),
            })
        })
    }

    /// What a receipt for a slice is worth.
    pub(super) fn receipt(&self, generation: Generation, sha256: &[u8]) -> Receipt {
        let current = self.current.as_ref();
        if current.is_some_and(|slice| slice.generation == generation && slice.sha256 == *sha256) {
            return Receipt::Current;
        }
        let Some((oldest, _)) = self.slices_sent.front() else {
            return Receipt::NeverSent;
        };
        let sent = self.slices_sent.iter().find(|(sent, _)| *sent == generation);
        let overtaken = match sent {
            Some((_, sent)) => sent == sha256,
            // It was sent so long ago that nobody knows, or it was passed over.
            None => generation < *oldest && self.slices_sent.len() >= SENT_MAX,
        };
        if overtaken {
            Receipt::Overtaken
        } else {
            Receipt::NeverSent
        }
    }

    /// The mesh that the slice before the newest was cut from.
    pub(super) fn before(&self) -> Option<&policy::Mesh> {
        self.before.as_deref()
    }

    /// The newest list of quarantines that the host was sent.
    pub(super) const fn quarantines_sent(&self) -> Option<Generation> {
        self.quarantines_sent
    }

    fn next_quarantines(&mut self, core: &Core) -> Quarantines {
        let list = core.quarantines.list();
        self.quarantines_sent = Some(list.generation);
        Quarantines {
            generation: Some(list.generation.into()),
            bots: list.bots().into_iter().map(ToString::to_string).collect(),
            hosts: list.hosts().map(ToString::to_string).collect(),
            serials: list.serials.clone(),
        }
    }

    /// One credential at a time: a sealed value is long beside the rest of a message.
    fn next_order(&mut self, core: &Core) -> Option<CredentialOrder> {
        let list = core.rotations.list();
        let is_news = |(name, rotation): &(&CredentialName, &RotationRow)| {
            self.orders_sent.get(*name) != Some(&(rotation.rotation, rotation.phase))
        };
        let (name, rotation) = list.of(&self.host).find(is_news)?;
        self.orders_sent
            .insert(name.clone(), (rotation.rotation, rotation.phase));
        order(rotation, &self.host)
    }

    fn next_slice(&mut self, core: &Core) -> Option<Slice> {
        let live = core.world.live();
        if self
            .current
            .as_ref()
            .is_some_and(|current| current.generation >= live.generation)
        {
            return None;
        }
        let slice = match HostSlice::cut(&live, &self.host) {
            Ok(slice) => slice?,
            Err(error) => {
                tracing::error!(host = %self.host, error = &error as &dyn std::error::Error, "a slice is not sent");
                return None;
            }
        };
        let has_it = self.resumed.take().is_some_and(|(applied, sha256)| {
            applied == slice.generation && (sha256.is_empty() || sha256 == slice.sha256)
        });
        if let Some(before) = self.current.take() {
            self.before = Some(before.mesh);
        }
        let slice = self.current.insert(slice);
        if self.slices_sent.len() >= SENT_MAX {
            self.slices_sent.pop_front();
        }
        self.slices_sent.push_back((slice.generation, slice.sha256));
        (!has_it).then(|| Slice {
            generation: Some(slice.generation.into()),
            sha256: slice.sha256.to_vec(),
            json: slice.json.clone().into_bytes(),
            features: slice.features.iter().map(|word| (*word).to_owned()).collect(),
        })
    }

    fn next_endpoints(&mut self, core: &Core) -> Option<Endpoints> {
        let live = core.world.live();
        let slice = self
            .current
            .as_ref()
            .filter(|slice| slice.generation == live.generation)?;
        let bots = slice.endpoints(live.mesh.as_deref()?, &core.world.routes(), &core.quarantines.list());
        let now = (live.generation, bots);
        if self.endpoints_sent.as_ref() == Some(&now) {
            return None;
        }
        let (generation, bots) = self.endpoints_sent.insert(now);
        Some(Endpoints {
            generation: Some((*generation).into()),
            bots: bots.clone(),
        })
    }
}
