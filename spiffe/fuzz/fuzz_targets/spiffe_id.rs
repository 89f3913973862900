//! Any text is refused, or is an ID that keeps every rule of SPIFFE-ID §2 and comes back as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spiffe::id::{BotName, HostName, HostPattern, SpiffeId};

fuzz_target!(|text: &str| {
    if let Ok(id) = SpiffeId::parse(text) {
        assert_eq!(id.as_str(), text);
        assert!(text.len() <= 2048);
        assert_eq!(format!("spiffe://{}{}", id.trust_domain_str(), id.path()), text);
        assert!(id.is_member_of(&id.trust_domain()));
        let path = id.path();
        assert!(path.is_empty() || path.starts_with('/'));
        assert!(
            path.split('/')
                .skip(1)
                .all(|segment| !matches!(segment, "" | "." | ".."))
        );
        let _ = id.kind();
    }
    if let Ok(bot) = BotName::parse(text) {
        assert_eq!(BotName::from_mesh_host(&bot.mesh_host()), Some(bot));
    }
    if let Some(bot) = BotName::from_mesh_host(text) {
        assert_eq!(bot.mesh_host(), text);
    }
    if let (Ok(pattern), Ok(host)) = (HostPattern::parse(text), HostName::parse("web-1")) {
        let _ = pattern.matches(&host);
    }
});
