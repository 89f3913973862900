//! What the thief says on a stream.

use super::*;

impl Table<'_> {
    /// The first message of a stream, and what it gets.
    fn first(&mut self, asked: &str, first: Message, recorded: &'static str) {
        let wire = self.thief.connect();
        let mut talk = self.thief.sync(&wire, first).expect("a stream");
        let answer = self.thief.goodbye(&mut talk);
        self.row(asked, answer, "goodbye: protocol", recorded);
    }

    pub(super) fn hellos(&mut self) {
        self.first(
            "Sync, not beginning with Hello",
            Message::Applied(Applied::default()),
            "host_refused no_hello",
        );
        let mut newer = hello("");
        newer.version = 2;
        self.first(
            "Hello of another version",
            Message::Hello(newer),
            "host_refused bad_hello",
        );
        let of_web_2 = hosts(self.mesh)["web-2"]["advertise"]
            .as_str()
            .expect("its address")
            .to_owned();
        for (asked, address) in [
            ("Hello with the address of web-2", of_web_2.as_str()),
            ("Hello with the address of everybody", "0.0.0.0:15443"),
            ("Hello with a name for an address", "web-2:15443"),
        ] {
            self.first(
                asked,
                Message::Hello(hello(address)),
                "host_refused advertise_not_yours",
            );
        }
        assert_eq!(hosts(self.mesh)["web-2"]["advertise"], of_web_2);
        self.slices();
    }

    fn slices(&mut self) {
        // Whose slice it gets is for the certificate to say, whatever it claims to have.
        let wire = self.thief.connect();
        let mut mine = hello("");
        mine.applied = Some(node::Generation { epoch: 1, revision: 2 });
        mine.applied_sha256 = vec![7; 32];
        let mut talk = self.thief.sync(&wire, Message::Hello(mine)).expect("a stream");
        let heard = self.thief.until_time(&mut talk);
        let text: String = heard
            .iter()
            .map(|message| match message {
                ca_message::Message::Slice(slice) => String::from_utf8_lossy(&slice.json).into_owned(),
                ca_message::Message::Endpoints(endpoints) => format!("{endpoints:?}"),
                ca_message::Message::CredentialOrder(order) => format!("{order:?}"),
                ca_message::Message::LedgerQuestion(question) => format!("{question:?}"),
                ca_message::Message::Bundle(_)
                | ca_message::Message::Quarantines(_)
                | ca_message::Message::CaTime(_)
                | ca_message::Message::Goodbye(_) => String::new(),
            })
            .collect();
        assert!(text.contains("prod/checkout") && !text.contains("vault"), "{text}");
        self.row(
            "Hello as if it had the slice of web-2",
            "its own slice, without a word of staging/vault".to_owned(),
            "its own",
            "host_connected",
        );
        let mut second = self.thief.hello(&wire);
        let answer = self.thief.goodbye(&mut talk);
        self.row("A second Sync at once", answer, "goodbye: replaced", "host_connected");
        second.say(Message::Hello(hello("")));
        let answer = self.thief.goodbye(&mut second);
        self.row(
            "A second Hello on a stream",
            answer,
            "goodbye: protocol",
            "host_refused second_hello",
        );
    }

    /// A message on a stream that stays up: passed over, and recorded.
    fn passed_over(&mut self, asked: &str, message: Message, word: &str, recorded: &'static str) {
        let before = self.counted(word);
        let wire = self.thief.connect();
        let mut talk = self.thief.hello(&wire);
        self.thief.until_time(&mut talk);
        talk.say(message);
        eventually(asked, || (self.counted(word) > before).then_some(()));
        self.row(asked, "passed over".to_owned(), "passed over", recorded);
    }

    /// A message that ends the stream.
    fn ends(&mut self, asked: &str, messages: Vec<Message>, recorded: &'static str) {
        let wire = self.thief.connect();
        let mut talk = self.thief.hello(&wire);
        for message in messages {
            talk.say(message);
        }
        let answer = self.thief.goodbye(&mut talk);
        self.row(asked, answer, "goodbye: protocol", recorded);
    }

    fn counted(&self, reason: &str) -> u64 {
        let (_, text) = http_get(self.dashboard(), "/metrics").expect("the metrics");
        let name = format!("botmesh_ca_refused_total{{reason=\"{reason}\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&name));
        line.map_or(0, |count| count.parse().expect("a number"))
    }

    fn dashboard(&self) -> u16 {
        let status = ok(botmesh().args(["ca", "status", "-o", "json", "--server", &self.mesh.server()]));
        let status: Value = serde_json::from_str(&status).expect("JSON");
        let address: SocketAddr = status["dashboard"]
            .as_str()
            .expect("an address")
            .parse()
            .expect("an address");
        address.port()
    }

    pub(super) fn receipts(&mut self) {
        let applied = |revision, sha256| {
            Message::Applied(Applied {
                generation: Some(node::Generation { epoch: 1, revision }),
                sha256,
                ok: true,
                error: String::new(),
            })
        };
        let (word, recorded) = ("receipt_not_sent", "host_refused receipt_not_sent");
        self.passed_over(
            "A receipt for a revision that was never sent",
            applied(99, vec![7; 32]),
            word,
            recorded,
        );
        self.passed_over(
            "A receipt for other bytes than were sent",
            applied(2, vec![7; 32]),
            word,
            recorded,
        );
        assert_eq!(
            hosts(self.mesh)["web-1"]["applied"],
            Value::Null,
            "no receipt was believed"
        );
        let enforced = Message::QuarantinesApplied(QuarantinesApplied {
            generation: Some(node::Generation { epoch: 1, revision: 99 }),
            streams_cut: 7,
        });
        let (word, recorded) = ("quarantines_not_sent", "host_refused quarantines_not_sent");
        self.passed_over(
            "A receipt for quarantines that were never sent",
            enforced,
            word,
            recorded,
        );
    }

    pub(super) fn telemetry_of_the_outside(&mut self) {
        let edges = |from| {
            Message::Edges(Edges {
                edges: vec![edge(from, "https://invented.example")],
                ..Edges::default()
            })
        };
        let (word, recorded) = ("edge_not_yours", "host_refused edge_not_yours");
        let others = edges("staging/vault");
        self.passed_over("Edges of a bot of web-2 to the outside", others, word, recorded);
        let (word, recorded) = ("edge_unreadable", "host_refused edge_unreadable");
        let nowhere = edges("prod/checkout");
        self.passed_over("Edges to the outside that no rule names", nowhere, word, recorded);
        let (word, recorded) = ("event_unreadable", "host_refused event_unreadable");
        let call = json!({"call": "", "direction": "out", "from": "prod/checkout", "outside": "https://invented.example",
                          "method": "GET", "path": "/", "reason": "no_rule"});
        self.passed_over(
            "An event about a destination that no rule names",
            event(DENIED, call),
            word,
            recorded,
        );
    }

    pub(super) fn telemetry(&mut self) {
        let edges = |edges| {
            Message::Edges(Edges {
                edges,
                ..Edges::default()
            })
        };
        let (word, recorded) = ("edge_not_yours", "host_refused edge_not_yours");
        let foreign = edges(vec![edge("prod/orders", "staging/vault")]);
        self.passed_over("Edges between bots of web-2", foreign, word, recorded);
        let domain = edges(vec![edge("spiffe://evil.example/prod/checkout", "prod/orders")]);
        self.passed_over(
            "Edges of its bot's name in another trust domain",
            domain,
            word,
            recorded,
        );
        let host = edges(vec![edge("spiffe://acme.internal/botmesh/host/web-1", "prod/orders")]);
        self.passed_over("Edges from a host", host, word, recorded);
        let (word, recorded) = ("edge_unreadable", "host_refused edge_unreadable");
        let mut bent = edge("prod/checkout", "prod/orders");
        bent.rule = "no-such-rule".to_owned();
        self.passed_over(
            "Edges by a rule that there is not",
            edges(vec![bent.clone()]),
            word,
            recorded,
        );
        bent.rule.clear();
        bent.reason = "<script>".to_owned();
        self.passed_over("Edges with a reason that is no word", edges(vec![bent]), word, recorded);
        let many = edges(vec![edge("prod/checkout", "prod/orders"); 513]);
        self.ends("513 edges in one message", vec![many], "host_refused too_many_edges");

        let call = json!({"call": "", "direction": "in", "from": "staging/vault", "to": "prod/orders", "method": "GET",
                          "path": "/", "reason": "no_rule"});
        let (word, recorded) = ("event_not_yours", "host_refused event_not_yours");
        self.passed_over("An event about bots of web-2", event(DENIED, call), word, recorded);
        let (word, recorded) = ("event_unreadable", "host_refused event_unreadable");
        self.passed_over("An event that is no JSON", event(DENIED, "]["), word, recorded);
        let long = event(DENIED, " ".repeat(8 * 1024 + 1));
        self.ends("An event of more than 8 KiB", vec![long], "host_refused event_too_long");
        self.heads();
    }

    /// Heads of ledgers that are not its own, or are none.
    fn heads(&mut self) {
        let recorded = "checkpoint_refused checkpoint_not_yours";
        for (asked, ledger) in [
            ("A head of web-2's ledger", self.mesh.host("web-2").ledger()),
            ("A head of the CA's ledger", self.mesh.ca_ledger()),
        ] {
            let head = audit::Head::read(&ledger).expect("a head");
            let request = CosignRequest {
                vkey: head.key().to_string(),
                note: head.note().to_owned(),
                ..CosignRequest::default()
            };
            let wire = self.thief.connect();
            let answer = self
                .thief
                .cosign(&wire, request)
                .unwrap_or_else(|status| status.to_string());
            self.row(asked, answer, "other_ledger", recorded);
        }
        let none = CosignRequest {
            note: "acme.internal/host/web-1\n9\n".to_owned(),
            ..CosignRequest::default()
        };
        let wire = self.thief.connect();
        let answer = said(self.thief.cosign(&wire, none));
        self.row(
            "A head that nobody signed",
            answer,
            "InvalidArgument",
            "checkpoint_refused checkpoint_unreadable",
        );
    }

    pub(super) fn floods(&mut self) {
        let long = event("denied", "x".repeat(300 * 1024));
        self.ends("A message of 300 KiB", vec![long], "host_refused message_too_long");
        let wire = self.thief.connect();
        let answer = said(self.thief.raw(&wire, "/botmesh.node.v1.Node/Sync", &[0xff; 64]));
        self.row(
            "Bytes that are no message",
            answer.replace("ALLOWED", "goodbye"),
            "goodbye",
            "host_refused message_unreadable",
        );
        let flood = vec![event(DENIED, "]["); 4000];
        let before = self.counted("event_unreadable");
        let wire = self.thief.connect();
        let mut talk = self.thief.hello(&wire);
        flood.into_iter().for_each(|message| talk.say(message));
        let answer = self.thief.goodbye(&mut talk);
        let looked_at = self.counted("event_unreadable") - before;
        assert!(looked_at < 2000, "{looked_at} messages of 4000 were looked at");
        self.row(
            "4000 messages at once",
            answer,
            "goodbye: protocol",
            "host_refused too_many_messages",
        );
        let wires: Vec<Wire> = (0..20).map(|_| self.thief.connect()).collect();
        let last = wires.last().expect("a connection");
        let answer = said(self.thief.issue(last, vec![request("staging/vault", Vec::new())]));
        self.row(
            "20 connections at once",
            answer,
            "Un",
            "host_refused too_many_connections",
        );
        drop(wires);
        eventually("the other connections to be forgotten", || {
            let wire = self.thief.connect();
            self.thief.issue(&wire, Vec::new()).is_ok().then_some(())
        });
    }
}
