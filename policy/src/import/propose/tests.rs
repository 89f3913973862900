use proptest::prelude::*;

use super::super::{NOBODY, dotenv, write};
use super::*;
use crate::{Source, load};

/// The looks that the tests need, as `proxy::credentials::detect` finds them.
fn looks(value: &str) -> Option<Looks> {
    let kinds = [
        ("sk-ant-", "Anthropic API key"),
        ("ghp_", "GitHub token"),
        ("xoxb-", "Slack token"),
        ("npm_", "npm token"),
        ("hooks.slack.com/services/T", "Slack webhook"),
    ];
    let (begin, kind) = kinds.into_iter().find(|(begin, _)| value.contains(begin))?;
    Some(Looks {
        kind,
        whole: value.starts_with(begin),
    })
}

fn proposed(text: &str) -> Proposal {
    let variables = dotenv::read(text, dotenv::Style::Dotenv).unwrap();
    let bot = BotName::parse("prod/support").unwrap();
    let about = About {
        bot: &bot,
        owner: "cx@acme.internal",
    };
    propose(about, &variables, looks)
}

/// Writes it, and has it pass as part of a mesh.
fn written(proposal: &Proposal) -> String {
    let text = write(proposal, "botmesh import env --from dotenv .env");
    let around = "version: 1\ntrust_domain: acme.internal\nbots:\n  prod/support: {owner: o, hosts: [web-1], attest: {uid: 2000}}\n";
    let source = |name: &str, text: &str| Source {
        name: name.to_owned(),
        text: text.to_owned(),
    };
    let mesh = load(&[source("mesh.yaml", around), source("proposal.yaml", &text)]);
    let mesh = mesh.unwrap_or_else(|errors| panic!("{}\n{text}", errors.render(false)));
    assert_eq!(mesh.credentials().count(), proposal.added.len(), "{text}");
    text
}

fn has(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.lines().any(|found| found == *line), "{line}\nis not in\n{text}");
    }
}

fn undecided(proposal: &Proposal) -> Vec<(&str, usize)> {
    let undecided = proposal.undecided.iter();
    undecided
        .map(|undecided| (undecided.name.as_str(), undecided.line))
        .collect()
}

#[test]
fn known_services_get_a_credential_a_rule_and_a_listener() {
    let proposal = proposed(
        "ANTHROPIC_API_KEY=sk-ant-1\nGH_TOKEN=ghp_1\nSTRIPE_SECRET_KEY=x\nSLACK_BOT_TOKEN=xoxb-1\nNOTION_TOKEN=n\nLOG_LEVEL=debug\n",
    );
    let text = written(&proposal);
    has(
        &text,
        &[
            r#"  anthropic: {header: x-api-key, owner: "cx@acme.internal"}"#,
            r#"  - {id: prod-support-anthropic, from: prod/support, to: "https://api.anthropic.com", http: ["POST /v1/messages", "POST /v1/messages/count_tokens", "GET /v1/models"], inject: anthropic}"#,
            r#"  github: {bearer: true, owner: "cx@acme.internal"}"#,
            r#"  - {id: prod-support-slack, from: prod/support, to: "https://slack.com", http: ["POST /api/*"], inject: slack}"#,
            r#"#   - {listen: "127.0.0.1:15201", to: "https://api.anthropic.com"}"#,
            "#   botmesh secret put github    # GH_TOKEN",
            "#   botmesh import env --from dotenv .env --put",
            "#   ANTHROPIC_BASE_URL=http://127.0.0.1:15201",
            "#   ANTHROPIC_API_KEY=added-by-the-proxy",
            "#   its client is told in another way: notion: http://127.0.0.1:15205",
            "# Nothing secret was seen in these, which stay: LOG_LEVEL",
        ],
    );
    assert!(proposal.undecided.is_empty());
    let value = |name: &str| {
        proposal
            .added
            .iter()
            .find(|added| added.name == name)
            .unwrap()
            .value
            .clone()
    };
    assert_eq!(value("github").unwrap().as_str(), "ghp_1");
}

#[test]
fn a_key_is_known_by_its_looks_and_another_address_of_its_service_is_kept() {
    let proposal =
        proposed("LLM=sk-ant-1\nOPENAI_API_KEY=x\nOPENAI_BASE_URL=https://llm.corp.example:8443/openai/v1/\n");
    has(
        &written(&proposal),
        &[
            "#   botmesh secret put anthropic    # LLM",
            "#   LLM=added-by-the-proxy",
            r#"  - {id: prod-support-openai, from: prod/support, to: "https://llm.corp.example:8443", http: ["POST /openai/v1/responses", "POST /openai/v1/chat/completions", "POST /openai/v1/embeddings", "GET /openai/v1/models"], inject: openai}"#,
            "#   OPENAI_BASE_URL=http://127.0.0.1:15202/openai/v1",
        ],
    );
}

#[test]
fn one_value_under_two_names_is_one_credential_and_two_values_are_a_persons_to_choose() {
    let proposal = proposed("GITHUB_TOKEN=ghp_1\nGH_TOKEN=ghp_1\nDEPLOY=ghp_2\n");
    has(
        &written(&proposal),
        &["#   botmesh secret put github    # GITHUB_TOKEN or GH_TOKEN"],
    );
    assert_eq!(undecided(&proposal), [("DEPLOY", 3)]);
    // In the midst of something else it is no key that could be added.
    let proposal = proposed("LINE='x-api-key: sk-ant-1'\n");
    written(&proposal);
    assert_eq!((proposal.added.len(), undecided(&proposal)), (0, vec![("LINE", 1)]));
    // Two services at one host: no rule could say whose key it is.
    let proposal = proposed("OPENAI_API_KEY=a\nOPENAI_BASE_URL=https://api.groq.com/openai/v1\nGROQ_API_KEY=b\n");
    written(&proposal);
    assert_eq!(undecided(&proposal), [("GROQ_API_KEY", 3)]);
    for address in [
        "http://llm.example.com",
        "https://llm",
        "https://10.0.0.1/v1",
        "https://a.example.com/../x",
        "https://user:pw@a.example.com",
        "https://a.example.com/?tenant=1",
    ] {
        let proposal = proposed(&format!("OPENAI_BASE_URL={address}\nOPENAI_API_KEY=a\n"));
        written(&proposal);
        assert!(undecided(&proposal).contains(&("OPENAI_API_KEY", 2)), "{address}");
        assert!(proposal.added.is_empty(), "{address}");
    }
}

#[test]
fn aws_is_signed_for_with_both_parts_and_a_region() {
    let keys = "AWS_ACCESS_KEY_ID=id\nAWS_SECRET_ACCESS_KEY=secret\n";
    let proposal = proposed(&format!(
        "{keys}AWS_SESSION_TOKEN=token\nAWS_REGION=eu-west-1\nSQS_QUEUE=jobs\n"
    ));
    has(
        &written(&proposal),
        &[
            r#"  aws: {sigv4: {region: eu-west-1, service: sqs}, owner: "cx@acme.internal"}"#,
            "#   botmesh secret put aws    # AWS_ACCESS_KEY_ID:AWS_SECRET_ACCESS_KEY:AWS_SESSION_TOKEN",
            "#   AWS_ENDPOINT_URL_SQS=http://127.0.0.1:15201",
            "#   AWS_SESSION_TOKEN goes",
        ],
    );
    assert_eq!(proposal.added[0].value.as_ref().unwrap().as_str(), "id:secret:token");
    for (text, wanted) in [
        (keys.to_owned(), 2),
        (format!("{keys}AWS_REGION='x, y: z'\n"), 2),
        (format!("{keys}AWS_REGION=eu.example.com\n"), 2),
        (
            format!("{keys}AWS_REGION=eu-west-1\nAWS_ENDPOINT_URL=http://minio:9000\n"),
            2,
        ),
        ("AWS_SECRET_ACCESS_KEY=secret\nAWS_REGION=eu-west-1\n".to_owned(), 1),
    ] {
        let proposal = proposed(&text);
        written(&proposal);
        assert_eq!((proposal.added.len(), proposal.undecided.len()), (0, wanted), "{text}");
    }
}

#[test]
fn a_database_is_logged_in_to_by_the_proxy() {
    let proposal = proposed(
        "DATABASE_URL=postgresql+asyncpg://rw:p%40ss@DB.example.com:5432/orders?sslmode=require\n\
         REPORTS_URL=postgres://rw:p%40ss@db.example.com/reports\nPGPASSWORD=x\nPGHOST=pg.example.com\nPGUSER=ro\nPGPORT=6432\n",
    );
    has(
        &written(&proposal),
        &[
            r#"  database: {postgres: {user: "rw"}, owner: "cx@acme.internal"}"#,
            r#"  - {id: prod-support-database, from: prod/support, to: "postgres://db.example.com", postgres: ["orders", "reports"], inject: database}"#,
            r#"  - {id: prod-support-database-2, from: prod/support, to: "postgres://pg.example.com:6432", postgres: ["ro"], inject: database-2}"#,
            "#   DATABASE_URL=postgresql+asyncpg://bot@127.0.0.1:15201/orders",
            "#   REPORTS_URL=postgres://bot@127.0.0.1:15201/reports",
            "#   PGHOST=127.0.0.1",
            "#   PGPORT=15202",
            "#   PGPASSWORD goes",
            "#   botmesh secret put database    # the password of DATABASE_URL or REPORTS_URL",
        ],
    );
    assert_eq!(proposal.added[0].value.as_ref().unwrap().as_str(), "p@ss");
    for text in [
        "DATABASE_URL=postgres://rw:pw@db/orders",
        "DATABASE_URL=postgres://rw:pw@a.example.com,b.example.com/orders",
        "DATABASE_URL=postgres://rw:pw@10.0.0.1/orders",
        "DATABASE_URL=postgres://r%20w:pw@db.example.com/orders",
        "DATABASE_URL=postgres://rw:p%zz@db.example.com/orders",
        "DATABASE_URL='postgres://rw:pw@db.example.com/a b'",
        "PGPASSWORD=pw\nPGUSER=rw",
        "DATABASE_URL=mysql://rw:pw@db.example.com/orders",
    ] {
        let proposal = proposed(text);
        written(&proposal);
        assert_eq!((proposal.added.len(), proposal.undecided.len()), (0, 1), "{text}");
    }
    let two = proposed("A_URL=postgres://a:1@db.example.com/x\nB_URL=postgres://b:2@db.example.com/x\n");
    written(&two);
    assert_eq!(undecided(&two), [("B_URL", 2)]);
    let without = proposed("DATABASE_URL=postgres://rw@db.example.com/orders");
    assert!(without.added.is_empty() && without.undecided.is_empty());
}

#[test]
fn addresses_are_destinations_unless_a_key_may_stand_in_them() {
    let proposal = proposed(
        "CRM_URL=https://crm.example.com/api/\nMETRICS_ENDPOINT=http://metrics.example.com:9090\nHOME_URL=http://localhost:8080\n",
    );
    has(
        &written(&proposal),
        &[
            r#"  - {id: prod-support-crm-example-com, from: prod/support, to: "https://crm.example.com", http: ["GET /api/**"]}"#,
            "#   CRM_URL=http://127.0.0.1:15201/api/",
            r#"  - {id: prod-support-metrics-example-com, from: prod/support, to: "http://metrics.example.com:9090", http: ["GET /**"]}"#,
            "# Nothing secret was seen in these, which stay: HOME_URL",
        ],
    );
    for text in [
        "ALERT_WEBHOOK_URL=https://alerts.example.com/x",
        "OPS_WEBHOOK_URL=https://hooks.slack.com/other/x1",
        "OPS_WEBHOOK_URL=http://hooks.slack.com/services/T0/B0/x1",
        "OPS_WEBHOOK_URL=https://hooks.slack.com.example.com/services/T0/B0/x1",
        "FEED_URL=https://feed.example.com/?key=1",
        "FEED_URL=https://feed.example.com/a8f3c1b2d4e5f60718293a4b5c6d7e8f",
        "FEED_URL=https://user:pw@feed.example.com/",
    ] {
        let proposal = proposed(text);
        let written = written(&proposal);
        assert_eq!((proposal.leads.len(), proposal.undecided.len()), (0, 1), "{written}");
    }
}

#[test]
fn the_address_of_a_webhook_is_a_credential_that_is_called_by_its_name() {
    let slack = "https://hooks.slack.com/services/T0/B0/zqQ9-7x";
    let proposal = proposed(&format!(
        "SLACK_WEBHOOK_URL={slack}\nALERTS={slack}\nDISCORD=https://discord.com/api/webhooks/1/zqQ9-7x\n\
         TEAMS=https://acme.webhook.office.com/webhookb2/zqQ9-7x@1/IncomingWebhook/2/3\n"
    ));
    let text = written(&proposal);
    has(
        &text,
        &[
            r#"  slack-webhook: {url: "https://hooks.slack.com", owner: "cx@acme.internal"}"#,
            r#"  discord-webhook: {url: "https://discord.com", owner: "cx@acme.internal"}"#,
            r#"  teams-webhook: {url: "https://acme.webhook.office.com", owner: "cx@acme.internal"}"#,
            r#"  - {id: prod-support-slack-webhook, from: prod/support, to: "secret://slack-webhook", http: ["POST /"]}"#,
            "#   SLACK_WEBHOOK_URL=http://127.0.0.1:15201/",
            "#   ALERTS=http://127.0.0.1:15201/",
        ],
    );
    assert!(!text.contains("zqQ9-7x"), "{text}");
    assert_eq!((proposal.added.len(), proposal.leads.len()), (3, 3));
    assert_eq!(
        proposal
            .added
            .iter()
            .find(|added| added.name == "slack-webhook")
            .unwrap()
            .value
            .as_ref()
            .unwrap()
            .as_str(),
        slack
    );
}

#[test]
fn what_looks_like_a_secret_and_is_of_nobody_known_is_a_persons_to_decide() {
    let proposal = proposed(
        "SESSION_SECRET=a\nMY_API_KEY=b\nDB_PASSWORD_FILE=/run/secrets/db\nPASSED_TOKEN\nNPM=npm_x\nSTRIPE_WEBHOOK_SECRET=w\n\
         BLOB=q8Xz0Lm3Vb7Nc2Kd9Ts5Rw1Y\nMAX_TOKENS=4096\nTOKEN_LIMIT=100\nUSE_AUTH=true\nEMPTY_TOKEN=\nSTRIPE_PUBLISHABLE_KEY=pk\nPATH=/usr/bin\n",
    );
    let text = written(&proposal);
    assert_eq!(
        undecided(&proposal),
        [
            ("SESSION_SECRET", 1),
            ("MY_API_KEY", 2),
            ("DB_PASSWORD_FILE", 3),
            ("PASSED_TOKEN", 4),
            ("NPM", 5),
            ("STRIPE_WEBHOOK_SECRET", 6),
            ("BLOB", 7)
        ],
        "{text}"
    );
    assert_eq!(
        proposal.kept,
        [
            "MAX_TOKENS",
            "TOKEN_LIMIT",
            "USE_AUTH",
            "EMPTY_TOKEN",
            "STRIPE_PUBLISHABLE_KEY",
            "PATH"
        ]
    );
    assert!(
        text.contains("#   PASSED_TOKEN (line 4): it is named like a secret, and its value comes from elsewhere"),
        "{text}"
    );
    assert!(
        text.contains("#   STRIPE_WEBHOOK_SECRET (line 6): the bot checks signatures with it"),
        "{text}"
    );
    assert!(
        text.contains("#   NPM (line 5): it looks like this: npm token"),
        "{text}"
    );
}

#[test]
fn nobody_named_is_said_and_every_owner_is_a_text() {
    let bot = BotName::parse("prod/support").unwrap();
    let variables = dotenv::read("GH_TOKEN=ghp_1", dotenv::Style::Dotenv).unwrap();
    for owner in [NOBODY, "a\"b: {c", "# x"] {
        let proposal = propose(About { bot: &bot, owner }, &variables, looks);
        let text = written(&proposal);
        assert_eq!(text.contains("Nobody was named"), owner == NOBODY, "{text}");
    }
}

const NAMES: [&str; 26] = [
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_BASE_URL",
    "OPENAI_API_KEY",
    "OPENAI_BASE_URL",
    "GROQ_API_KEY",
    "GITHUB_TOKEN",
    "GH_TOKEN",
    "GITHUB_API_URL",
    "STRIPE_KEY",
    "SLACK_TOKEN",
    "SLACK_WEBHOOK_URL",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "S3_BUCKET",
    "DATABASE_URL",
    "OTHER_URL",
    "PGHOST",
    "PGPORT",
    "PGUSER",
    "PGPASSWORD",
    "PGDATABASE",
    "ANY_PASSWORD",
    "ANY",
    "LINEAR_API_KEY",
];

proptest! {
    /// Every variable is dealt with once, what is written is a mesh, and no secret is in it.
    #[test]
    fn whatever_is_in_an_environment_it_comes_to_a_mesh_without_a_secret(
        set in prop::collection::btree_map(0..NAMES.len(), ("[a-z]{1,8}", 0..10usize), 0..20),
    ) {
        let value = |number: usize, word: &str, form: usize| {
            let secret = format!("zq{number}{word}Q9-7x{word}");
            match form {
                0 => format!("https://{word}.example.com/{word}"),
                1 => format!("postgres://{word}:{secret}@{word}.example.com/{word}"),
                2 => format!("https://{word}:{secret}@{word}.example.com"),
                3 => format!("sk-ant-{secret}"),
                4 => format!("ghp_{secret}"),
                5 => "eu-west-1".to_owned(),
                6 => String::new(),
                7 => format!("{word}.example.com"),
                8 => format!("https://hooks.slack.com/services/T0/B0/{secret}"),
                _ => secret,
            }
        };
        let text: String = set
            .iter()
            .map(|(number, (word, form))| format!("{}='{}'\n", NAMES[*number], value(*number, word, *form)))
            .collect();
        let proposal = proposed(&text);
        let mesh = written(&proposal);
        for (number, (word, form)) in &set {
            let secret = format!("zq{number}{word}Q9-7x{word}");
            let name = NAMES[*number];
            // Users and databases are no secrets, and are in the mesh.
            if !["PGUSER", "PGDATABASE"].contains(&name) {
                prop_assert!(!mesh.contains(&secret), "{}: {}\n{}", name, form, mesh);
            }
            let dealt = [
                proposal.environment.iter().any(|(changed, _)| changed.as_deref() == Some(name)),
                proposal.undecided.iter().any(|undecided| undecided.name == name),
                proposal.kept.iter().any(|kept| kept == name),
            ];
            prop_assert_eq!(dealt.iter().filter(|dealt| **dealt).count(), 1, "{} {}", name, mesh);
        }
    }
}
