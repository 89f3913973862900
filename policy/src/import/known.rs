//! Services that many bots call: by which variable their key is known, and how they take it.

/// How a key is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Bearer,
    /// In this field.
    Header(&'static str),
}

/// A service.
#[derive(Debug)]
pub(super) struct Service {
    /// What its credential is called.
    pub(super) name: &'static str,
    /// The variables of its key.
    pub(super) keys: &'static [&'static str],
    /// What a key of it is called by its looks (`proxy::credentials::detect`).
    pub(super) looks: &'static [&'static str],
    pub(super) host: &'static str,
    /// What stands before the paths of its calls.
    pub(super) base: &'static str,
    /// The variables by which its clients are told of another address; the first of them is proposed.
    pub(super) addresses: &'static [&'static str],
    pub(super) way: Way,
    /// What bots mostly call, from the base.
    pub(super) calls: &'static [&'static str],
}

const fn bearer(name: &'static str, keys: &'static [&'static str], host: &'static str) -> Service {
    Service {
        name,
        keys,
        looks: &[],
        host,
        base: "",
        addresses: &[],
        way: Way::Bearer,
        calls: &["GET /**", "POST /**"],
    }
}

const CHAT: &[&str] = &["POST /chat/completions", "POST /embeddings", "GET /models"];

/// All of them, as their own pages have it.
pub(super) const SERVICES: [Service; 16] = [
    Service {
        looks: &["Anthropic API key"],
        addresses: &["ANTHROPIC_BASE_URL"],
        way: Way::Header("x-api-key"),
        calls: &["POST /v1/messages", "POST /v1/messages/count_tokens", "GET /v1/models"],
        ..bearer(
            "anthropic",
            &["ANTHROPIC_API_KEY", "CLAUDE_API_KEY"],
            "api.anthropic.com",
        )
    },
    Service {
        looks: &["OpenAI API key"],
        base: "/v1",
        addresses: &["OPENAI_BASE_URL", "OPENAI_API_BASE"],
        calls: &[
            "POST /responses",
            "POST /chat/completions",
            "POST /embeddings",
            "GET /models",
        ],
        ..bearer("openai", &["OPENAI_API_KEY", "OPENAI_KEY"], "api.openai.com")
    },
    Service {
        looks: &["Google API key"],
        addresses: &["GOOGLE_GEMINI_BASE_URL"],
        way: Way::Header("x-goog-api-key"),
        calls: &["POST /v1beta/models/*"],
        ..bearer(
            "gemini",
            &["GEMINI_API_KEY", "GOOGLE_API_KEY"],
            "generativelanguage.googleapis.com",
        )
    },
    Service {
        base: "/v1",
        calls: CHAT,
        ..bearer("mistral", &["MISTRAL_API_KEY"], "api.mistral.ai")
    },
    Service {
        base: "/openai/v1",
        addresses: &["GROQ_BASE_URL"],
        calls: CHAT,
        ..bearer("groq", &["GROQ_API_KEY"], "api.groq.com")
    },
    Service {
        calls: CHAT,
        ..bearer("deepseek", &["DEEPSEEK_API_KEY"], "api.deepseek.com")
    },
    Service {
        base: "/api/v1",
        addresses: &["OPENROUTER_BASE_URL"],
        calls: CHAT,
        ..bearer("openrouter", &["OPENROUTER_API_KEY"], "openrouter.ai")
    },
    Service {
        addresses: &["CO_API_URL"],
        calls: &["POST /v2/chat", "POST /v2/embed", "POST /v2/rerank"],
        ..bearer("cohere", &["COHERE_API_KEY", "CO_API_KEY"], "api.cohere.com")
    },
    Service {
        looks: &["Hugging Face token"],
        addresses: &["HF_ENDPOINT"],
        calls: &["GET /**"],
        ..bearer(
            "huggingface",
            &["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_TOKEN"],
            "huggingface.co",
        )
    },
    Service {
        looks: &["GitHub token"],
        addresses: &["GITHUB_API_URL"],
        calls: &["GET /**"],
        ..bearer("github", &["GITHUB_TOKEN", "GH_TOKEN", "GITHUB_PAT"], "api.github.com")
    },
    Service {
        looks: &["GitLab token"],
        addresses: &["GITLAB_URL", "CI_SERVER_URL"],
        way: Way::Header("private-token"),
        calls: &["GET /api/v4/**"],
        ..bearer("gitlab", &["GITLAB_TOKEN", "GITLAB_PRIVATE_TOKEN"], "gitlab.com")
    },
    Service {
        looks: &["Stripe key"],
        addresses: &["STRIPE_API_BASE"],
        calls: &["GET /v1/**", "POST /v1/**"],
        ..bearer(
            "stripe",
            &["STRIPE_SECRET_KEY", "STRIPE_API_KEY", "STRIPE_KEY"],
            "api.stripe.com",
        )
    },
    Service {
        looks: &["Slack token"],
        base: "/api",
        addresses: &["SLACK_API_URL"],
        calls: &["POST /*"],
        ..bearer(
            "slack",
            &["SLACK_BOT_TOKEN", "SLACK_TOKEN", "SLACK_API_TOKEN", "SLACK_USER_TOKEN"],
            "slack.com",
        )
    },
    Service {
        looks: &["SendGrid key"],
        calls: &["POST /v3/mail/send"],
        ..bearer("sendgrid", &["SENDGRID_API_KEY"], "api.sendgrid.com")
    },
    Service {
        calls: &["GET /v1/**", "POST /v1/**"],
        ..bearer("notion", &["NOTION_TOKEN", "NOTION_API_KEY"], "api.notion.com")
    },
    Service {
        way: Way::Header("authorization"),
        calls: &["POST /graphql"],
        ..bearer("linear", &["LINEAR_API_KEY"], "api.linear.app")
    },
];

/// A kind of webhook, whose address is the key.
#[derive(Debug)]
pub(super) struct Hook {
    /// What its credential is called.
    pub(super) name: &'static str,
    /// Its host, or with a dot in front what hosts end with.
    pub(super) host: &'static str,
    /// How its path begins.
    pub(super) path: &'static str,
}

const fn hook(name: &'static str, host: &'static str, path: &'static str) -> Hook {
    Hook { name, host, path }
}

/// All of them, as their own pages have it.
pub(super) const HOOKS: [Hook; 9] = [
    hook("slack-webhook", "hooks.slack.com", "/services/"),
    hook("slack-webhook", "hooks.slack.com", "/workflows/"),
    hook("slack-webhook", "hooks.slack.com", "/triggers/"),
    hook("discord-webhook", "discord.com", "/api/webhooks/"),
    hook("discord-webhook", "discordapp.com", "/api/webhooks/"),
    hook("teams-webhook", ".webhook.office.com", "/webhook"),
    hook("teams-webhook", "outlook.office.com", "/webhook/"),
    hook("teams-webhook", ".logic.azure.com", "/workflows/"),
    hook("chat-webhook", "chat.googleapis.com", "/v1/spaces/"),
];

/// Secrets that a bot works with itself, so that no proxy can have them in its place.
pub(super) const WORKED_WITH: [(&str, &str); 8] = [
    ("STRIPE_WEBHOOK_SECRET", "the bot checks signatures with it"),
    ("SLACK_SIGNING_SECRET", "the bot checks signatures with it"),
    ("GITHUB_WEBHOOK_SECRET", "the bot checks signatures with it"),
    ("WEBHOOK_SECRET", "the bot checks signatures with it"),
    ("JWT_SECRET", "the bot signs or checks tokens with it"),
    ("SESSION_SECRET", "the bot signs or checks cookies with it"),
    ("SECRET_KEY_BASE", "the bot signs or checks cookies with it"),
    (
        "SLACK_APP_TOKEN",
        "it opens a WebSocket, and no credential is added to those",
    ),
];

/// Variables that are named like keys and are none.
pub(super) const PUBLIC: [&str; 4] = [
    "STRIPE_PUBLISHABLE_KEY",
    "NEXT_PUBLIC_STRIPE_PUBLISHABLE_KEY",
    "SSH_PUBLIC_KEY",
    "VAPID_PUBLIC_KEY",
];
