//! The same thief when its host is quarantined, when its SVID has ended, and when the host is evicted.

use super::*;

impl Table<'_> {
    fn own(&self) -> Vec<SvidRequest> {
        vec![request("prod/checkout", self.thief.csr("prod/checkout"))]
    }

    /// By its own key, for a new one.
    fn renew(&self, clock: &Clock) -> Result<(node::AttestResponse, PrivateKey), Status> {
        let stranger = self.thief.dial(None, clock).expect("a connection");
        let key = PrivateKey::generate().expect("a key");
        let answer = self.attest(&stranger, "web-1", &key, None)?;
        Ok((answer, key))
    }

    pub(super) fn quarantined(&mut self) {
        let server = self.mesh.server();
        // Both exit with 4, since web-1 is not there to say that it enforces them.
        run(botmesh().args([
            "quarantine",
            "--host",
            "web-1",
            "--reason",
            "taken over",
            "--server",
            &server,
        ]));
        let wire = self.thief.connect();
        let answer = self.thief.issue(&wire, self.own()).expect("an answer").concat();
        self.row(
            "Issue, while web-1 is quarantined",
            answer,
            "quarantined",
            "issue_refused quarantined",
        );
        let answer = said(self.renew(&Clock::system()));
        self.row(
            "Attest by its own key, while quarantined",
            answer,
            "PermissionDenied",
            "issue_refused quarantined",
        );
        let mut talk = self.thief.hello(&wire);
        let heard = self.thief.until_time(&mut talk);
        let told =
            |m: &ca_message::Message| matches!(m, ca_message::Message::Slice(_) | ca_message::Message::Endpoints(_));
        let answer = if heard.iter().any(told) {
            "TOLD"
        } else {
            "the list of quarantines, no slice, no address"
        };
        self.row(
            "Its slice, while quarantined",
            answer.to_owned(),
            "the list",
            "quarantined",
        );
        drop(talk);
        run(botmesh().args(["release", "--host", "web-1", "--server", &server]));
    }

    /// A connection on which the CA answers: those that were opened before and dropped may hold the host's places still.
    fn placed(&self) -> Wire {
        eventually("a place for a connection of the host", || {
            let wire = self.thief.dial(Some(&self.thief.node), &Clock::system()).ok()?;
            let answer = said(self.thief.issue(&wire, self.own()));
            (answer.starts_with("ALLOWED") || answer.starts_with("ResourceExhausted")).then_some(wire)
        })
    }

    pub(super) fn ended(&mut self, hand: &Hand) {
        let old = self.placed();
        hand.forward(Duration::from_secs(3660));
        let answer = eventually("the SVID to end", || {
            let answer = said(self.thief.issue(&old, self.own()));
            (!answer.starts_with("ALLOWED") && !answer.starts_with("ResourceExhausted")).then_some(answer)
        });
        self.row(
            "Issue, with an SVID that has ended",
            answer,
            "PermissionDenied",
            "host_refused svid_expired",
        );
        let answer = said(self.thief.sync(&old, Message::Hello(hello(""))));
        self.row(
            "Sync, with an SVID that has ended",
            answer,
            "PermissionDenied",
            "host_refused svid_expired",
        );
        eventually("the CA's own new SVID", || self.thief.dial(None, &at(hand)).ok());
        // TLS 1.3: the client has finished before the server looks at its certificate.
        let answer = match self.thief.dial(Some(&self.thief.node), &at(hand)) {
            Ok(wire) => said(self.thief.issue(&wire, self.own())),
            Err(error) => format!("handshake: {error}"),
        };
        assert!(!answer.starts_with("ALLOWED"), "{answer}");
        self.row("A new connection with it", answer, "", "strangers expired");
    }

    /// A new SVID for a new key, in use from its first stream on; the key before is worth nothing then.
    pub(super) fn replaced(&mut self) {
        let old = self.placed();
        let mut talk = self.renewed(&Clock::system());
        let answer = said(self.thief.issue(&old, self.own()));
        let recorded = "host_refused key_not_current";
        self.row(
            "Issue by the key that web-1 had before",
            answer,
            "PermissionDenied",
            recorded,
        );
        let answer = said(self.thief.sync(&old, Message::Hello(hello(""))));
        self.row("Sync by that key", answer, "PermissionDenied", recorded);
        self.thief.until_time(&mut talk);
    }

    fn renewed(&mut self, clock: &Clock) -> Talk {
        let (answer, new) = self.renew(clock).expect("a new SVID");
        self.thief.key = new.to_pkcs8().expect("PKCS#8").to_vec();
        self.thief.node = Svid::new(answer.chain, new).expect("an SVID");
        let wire = self.thief.dial(Some(&self.thief.node), clock).expect("a connection");
        let mut talk = self.thief.hello(&wire);
        self.thief.until_time(&mut talk);
        talk
    }

    pub(super) fn evicted(&mut self, hand: &Hand) {
        let clock = at(hand);
        eventually("the CA's own new SVID", || self.thief.dial(None, &clock).ok());
        let mut talk = self.renewed(&clock);
        let connect = |table: &Self| table.thief.dial(Some(&table.thief.node), &clock).expect("a connection");
        let held = connect(self);
        assert!(self.thief.issue(&held, self.own()).is_ok(), "until then it is the host");
        // It waits for web-2, whose own SVID has ended and is renewed meanwhile.
        run(botmesh().args(["host", "evict", "web-1", "--server", &self.mesh.server()]));
        let answer = self.thief.goodbye(&mut talk);
        self.row(
            "Its stream, when web-1 is evicted",
            answer,
            "goodbye: evicted",
            "host_evicted",
        );
        let recorded = "host_refused evicted";
        let answer = said(self.thief.issue(&held, self.own()));
        self.row("Issue, when evicted", answer, "PermissionDenied", recorded);
        let answer = said(self.thief.issue(&connect(self), self.own()));
        self.row(
            "Issue, when evicted, on a new connection",
            answer,
            "PermissionDenied",
            recorded,
        );
        let answer = said(self.thief.sync(&connect(self), Message::Hello(hello(""))));
        self.row("Sync, when evicted", answer, "PermissionDenied", recorded);
        let answer = said(self.renew(&clock));
        self.row("Attest, when evicted", answer, "PermissionDenied", recorded);
    }
}

/// What the CA's clock shows.
fn at(hand: &Hand) -> Clock {
    Clock::fixed(Timestamp::from_unix_millis(hand.shows())).0
}
