//! What the thief asks for: node SVIDs, SVIDs of bots, other APIs.

use super::*;

impl Table<'_> {
    pub(super) fn attestations(&mut self) {
        let thief = |table: &Self| {
            table
                .thief
                .dial(None, &Clock::system())
                .expect("a stranger's connection")
        };
        let key = PrivateKey::generate().expect("a key");
        let answer = said(self.attest(&thief(self), "web-2", &key, None));
        self.row(
            "Attest as web-2, by the key of web-1",
            answer,
            "PermissionDenied",
            "strangers attest_unknown_key",
        );

        let token = |text: &str| {
            let token = JoinToken::parse(text.trim()).expect("a token");
            Some(Evidence::Token(TokenEvidence {
                secret: token.secret().expose_text().to_string(),
            }))
        };
        let used = std::fs::read_to_string(self.mesh.host("web-2").dir.join("token")).expect("the token of web-2");
        let answer = said(self.attest(&thief(self), "", &key, token(&used)));
        self.row(
            "Attest with web-2's used token, another key",
            answer,
            "PermissionDenied",
            "token_refused token_other_key",
        );
        let fresh = ok(botmesh().args(["host", "token", "web-2", "--server", &self.mesh.server()]));
        let answer = said(self.attest(&thief(self), "", &key, token(&fresh)));
        self.row(
            "Attest with a fresh token of web-2, which has a key",
            answer,
            "PermissionDenied",
            "token_refused host_has_key",
        );
        self.made_up(&key, token(&fresh));
    }

    fn made_up(&mut self, key: &PrivateKey, fresh: Option<Evidence>) {
        let thief = |table: &Self| {
            table
                .thief
                .dial(None, &Clock::system())
                .expect("a stranger's connection")
        };
        let made_up = Some(Evidence::Token(TokenEvidence { secret: "A".repeat(43) }));
        let answer = said(self.attest(&thief(self), "", key, made_up));
        self.row(
            "Attest with a token that nobody made",
            answer,
            "PermissionDenied",
            "strangers token_unknown",
        );
        let named = said(self.attest(&thief(self), "web-2", key, fresh));
        self.row(
            "Attest with a token, naming the host itself",
            named,
            "PermissionDenied",
            "strangers attest_named_host",
        );
        // A proof is worth nothing on another connection.
        let (one, other) = (thief(self), thief(self));
        let relayed = Wire {
            channel: other.channel,
            exporter: one.exporter,
        };
        let answer = said(self.attest(&relayed, "web-1", key, None));
        self.row(
            "Attest with a proof of another connection",
            answer,
            "PermissionDenied",
            "strangers attest_bad_proof",
        );
    }

    pub(super) fn issuances(&mut self) {
        let wire = self.thief.connect();
        let csr = self.thief.csr("prod/checkout");
        let one = |table: &Self, bot: &str, csr: Vec<u8>| match table.thief.issue(&wire, vec![request(bot, csr)]) {
            Ok(words) => words.concat(),
            Err(status) => said::<()>(Err(status)),
        };
        for (bot, refused, recorded) in [
            ("prod/orders", "not_your_bot", "issue_refused not_your_bot"),
            ("staging/vault", "not_your_bot", "issue_refused not_your_bot"),
            ("prod/no-such-bot", "not_your_bot", "issue_refused not_your_bot"),
            ("botmesh/ca/main", "bad_request", "issue_refused not_a_bot"),
            ("botmesh/host/web-2", "bad_request", "issue_refused not_a_bot"),
            ("botmesh/operator/root", "bad_request", "issue_refused not_a_bot"),
            (
                "spiffe://acme.internal/botmesh/ca/main",
                "bad_request",
                "issue_refused not_a_bot",
            ),
            ("../prod/orders", "bad_request", "issue_refused not_a_bot"),
        ] {
            let answer = one(self, bot, csr.clone());
            self.row(&format!("Issue for {bot}"), answer, refused, recorded);
        }
        let answer = one(self, "prod/checkout", vec![0x30; 4097]);
        self.row(
            "Issue with a CSR of 4097 bytes",
            answer,
            "bad_request: the CSR is too long",
            "issue_refused bad_csr",
        );
        let answer = one(self, "prod/checkout", vec![0x30; 200]);
        self.row(
            "Issue with a CSR that is none",
            answer,
            "bad_request: not a PKCS#10",
            "issue_refused bad_csr",
        );
        let answer = said(self.thief.issue(&wire, vec![request("prod/checkout", csr.clone()); 65]));
        self.row(
            "Issue of 65 SVIDs at once",
            answer,
            "InvalidArgument",
            "issue_refused too_many_svids",
        );
        self.on_and_on(&wire, csr);
    }

    fn on_and_on(&mut self, wire: &Wire, csr: Vec<u8>) {
        let mut asked = 0;
        let answer = loop {
            asked += 64;
            match self.thief.issue(wire, vec![request("prod/checkout", csr.clone()); 64]) {
                Ok(words) => assert!(
                    asked <= 4096 && words.iter().all(|word| word == "issued"),
                    "{asked}: {words:?}"
                ),
                Err(status) => break said::<()>(Err(status)),
            }
        };
        self.row(
            "Issue of more than 4096 SVIDs, on and on",
            answer,
            "ResourceExhausted",
            "issue_refused svids_limited",
        );
    }

    pub(super) fn others(&mut self) {
        let wire = self.thief.connect();
        for (path, name) in [
            ("/v1/apply", "POST /v1/apply, of the admin API, on the node port"),
            ("/v1/host/token", "POST /v1/host/token there"),
            ("/botmesh.node.v1.Node/Evict", "An RPC that there is not"),
        ] {
            let answer = said(self.thief.raw(&wire, path, b"{}"));
            self.row(name, answer, "Unimplemented", "host_refused unknown_rpc");
        }
        let key = PrivateKey::generate().expect("a key");
        let id = SpiffeId::for_bot(&self.thief.td, &BotName::parse("prod/checkout").expect("a bot"));
        let mut client = NodeClient::new(wire.channel.clone());
        let svids = vec![request("prod/checkout", key.csr(&id).expect("a CSR"))];
        let answer = self
            .thief
            .wait(client.issue(node::IssueRequest { svids }))
            .expect("its own bot")
            .into_inner();
        let bot = Svid::new(answer.results[0].chain.clone(), key).expect("an SVID");
        let wire = self.thief.dial(Some(&bot), &Clock::system()).expect("a connection");
        let answer = said(
            self.thief
                .issue(&wire, vec![request("prod/checkout", self.thief.csr("prod/checkout"))]),
        );
        self.row(
            "Issue, as one of its bots and not as the host",
            answer,
            "PermissionDenied",
            "strangers not_a_host",
        );
        let answer = said(self.thief.sync(&wire, Message::Hello(hello(""))));
        self.row(
            "Sync, as one of its bots",
            answer,
            "PermissionDenied",
            "strangers not_a_host",
        );
        let wire = self.thief.dial(None, &Clock::system()).expect("a connection");
        let answer = said(self.thief.sync(&wire, Message::Hello(hello(""))));
        self.row(
            "Sync without a certificate",
            answer,
            "PermissionDenied",
            "strangers no_certificate",
        );
    }
}
