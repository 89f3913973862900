use proptest::prelude::*;

use super::*;

fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}

fn domain(text: &str) -> TrustDomain {
    TrustDomain::parse(text).unwrap()
}

fn bot(text: &str) -> BotName {
    BotName::parse(text).unwrap()
}

fn refused(text: &str) -> IdError {
    SpiffeId::parse(text).unwrap_err()
}

mod trust_domains {
    use super::*;

    #[test]
    fn hold_every_character_of_the_grammar() {
        assert_eq!(domain("az09.-_").as_str(), "az09.-_");
        assert_eq!(
            domain("10.1.2.3").as_str(),
            "10.1.2.3",
            "what looks like IPv4 is a legal name"
        );
    }

    #[test]
    fn hold_no_other_ascii_character() {
        let allowed = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '.' | '-' | '_');
        for found in (0..=127u8).map(char::from).filter(|c| !allowed(*c)) {
            assert_eq!(
                TrustDomain::parse(&format!("a{found}b")),
                Err(IdError::TrustDomainCharacter { found }),
                "{found:?}"
            );
        }
        assert_eq!(
            TrustDomain::parse("é"),
            Err(IdError::TrustDomainCharacter { found: 'é' })
        );
    }

    #[test]
    fn are_not_empty() {
        assert_eq!(TrustDomain::parse(""), Err(IdError::TrustDomainEmpty));
    }

    #[test]
    fn have_255_bytes_and_no_more() {
        assert!(TrustDomain::parse(&"a".repeat(255)).is_ok());
        assert_eq!(
            TrustDomain::parse(&"a".repeat(256)),
            Err(IdError::TrustDomainTooLong { bytes: 256 })
        );
    }

    #[test]
    fn have_an_id_without_path() {
        assert_eq!(domain("acme.internal").id(), id("spiffe://acme.internal"));
    }
}

mod spiffe_ids {
    use super::*;

    #[test]
    fn split_into_trust_domain_and_path() {
        let id = id("spiffe://acme.internal/prod/orders");
        assert_eq!(id.trust_domain(), domain("acme.internal"));
        assert_eq!(id.trust_domain_str(), "acme.internal");
        assert_eq!(id.path(), "/prod/orders");
        assert_eq!(id.as_str(), "spiffe://acme.internal/prod/orders");
    }

    #[test]
    fn may_have_no_path() {
        let id = id("spiffe://acme.internal");
        assert_eq!((id.trust_domain_str(), id.path()), ("acme.internal", ""));
    }

    #[test]
    fn start_with_the_exact_scheme() {
        for text in [
            "",
            "spiffe",
            "spiffe:/acme/x",
            "SPIFFE://acme/x",
            "Spiffe://acme",
            "http://acme/x",
            " spiffe://acme",
        ] {
            assert_eq!(refused(text), IdError::Scheme, "{text:?}");
        }
    }

    #[test]
    fn have_a_trust_domain() {
        assert_eq!(refused("spiffe://"), IdError::TrustDomainEmpty);
        assert_eq!(refused("spiffe:///x"), IdError::TrustDomainEmpty);
    }

    #[test]
    fn bound_the_trust_domain_too() {
        let name = "a".repeat(255);
        assert!(SpiffeId::parse(&format!("spiffe://{name}/x")).is_ok());
        assert_eq!(
            refused(&format!("spiffe://{name}a/x")),
            IdError::TrustDomainTooLong { bytes: 256 }
        );
    }

    #[test]
    fn have_no_port_user_info_query_fragment_or_escape() {
        assert_eq!(
            refused("spiffe://acme:443/x"),
            IdError::TrustDomainCharacter { found: ':' }
        );
        assert_eq!(
            refused("spiffe://me@acme/x"),
            IdError::TrustDomainCharacter { found: '@' }
        );
        assert_eq!(
            refused("spiffe://ac%6de/x"),
            IdError::TrustDomainCharacter { found: '%' }
        );
        assert_eq!(refused("spiffe://acme?x"), IdError::TrustDomainCharacter { found: '?' });
        assert_eq!(refused("spiffe://Acme/x"), IdError::TrustDomainCharacter { found: 'A' });
        assert_eq!(refused("spiffe://acme/x?y"), IdError::PathCharacter { found: '?' });
        assert_eq!(refused("spiffe://acme/x#y"), IdError::PathCharacter { found: '#' });
        assert_eq!(refused("spiffe://acme/%41"), IdError::PathCharacter { found: '%' });
    }

    #[test]
    fn hold_no_other_ascii_character_in_a_segment() {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '/');
        for found in (0..=127u8).map(char::from) {
            let text = format!("spiffe://acme/a{found}b");
            if allowed(found) {
                assert_eq!(id(&text).as_str(), text);
            } else {
                assert_eq!(refused(&text), IdError::PathCharacter { found }, "{found:?}");
            }
        }
        assert_eq!(refused("spiffe://acme/é"), IdError::PathCharacter { found: 'é' });
    }

    #[test]
    fn have_no_empty_and_no_dot_segment() {
        assert_eq!(refused("spiffe://acme/"), IdError::TrailingSlash);
        assert_eq!(refused("spiffe://acme/x/"), IdError::TrailingSlash);
        assert_eq!(refused("spiffe://acme//x"), IdError::EmptySegment);
        assert_eq!(refused("spiffe://acme/x//y"), IdError::EmptySegment);
        assert_eq!(refused("spiffe://acme/."), IdError::DotSegment);
        assert_eq!(refused("spiffe://acme/x/../y"), IdError::DotSegment);
        assert_eq!(id("spiffe://acme/.../.x/..y").path(), "/.../.x/..y");
    }

    #[test]
    fn have_2048_bytes_and_no_more() {
        let start = "spiffe://acme/";
        let longest = format!("{start}{}", "x".repeat(2048 - start.len()));
        assert_eq!(id(&longest).as_str().len(), 2048);
        assert_eq!(refused(&format!("{longest}x")), IdError::IdTooLong { bytes: 2049 });
    }

    #[test]
    fn differ_by_case_of_the_path() {
        assert_ne!(id("spiffe://acme/X"), id("spiffe://acme/x"));
    }

    #[test]
    fn belong_to_their_trust_domain_only() {
        let acme = domain("acme");
        assert!(id("spiffe://acme/x").is_member_of(&acme));
        assert!(id("spiffe://acme").is_member_of(&acme));
        for other in [
            "spiffe://acme2/x",
            "spiffe://acm/x",
            "spiffe://x.acme/acme",
            "spiffe://acme.x",
        ] {
            assert!(!id(other).is_member_of(&acme), "{other}");
        }
    }

    #[test]
    fn share_their_text_between_clones() {
        let first = id("spiffe://acme/x");
        assert!(std::ptr::eq(first.as_str(), first.clone().as_str()));
    }

    #[test]
    fn are_built_for_bots_hosts_and_ca_servers() {
        let acme = domain("acme");
        let web = HostName::parse("web-1").unwrap();
        assert_eq!(
            SpiffeId::for_bot(&acme, &bot("prod/orders")).as_str(),
            "spiffe://acme/prod/orders"
        );
        assert_eq!(
            SpiffeId::for_host(&acme, &web).as_str(),
            "spiffe://acme/botmesh/host/web-1"
        );
        assert_eq!(SpiffeId::for_ca(&acme, &web).as_str(), "spiffe://acme/botmesh/ca/web-1");
    }

    #[test]
    fn tell_what_they_name() {
        let web = HostName::parse("web-1").unwrap();
        let kind = |path: &str| id(&format!("spiffe://acme{path}")).kind();
        assert_eq!(kind(""), IdKind::TrustDomain);
        assert_eq!(kind("/prod/orders"), IdKind::Bot(bot("prod/orders")));
        assert_eq!(kind("/botmesh/host/web-1"), IdKind::Host(web.clone()));
        assert_eq!(kind("/botmesh/ca/web-1"), IdKind::Ca(web));
        assert_eq!(kind("/botmesh/operator/Ann.B"), IdKind::Operator("Ann.B".to_owned()));
    }

    #[test]
    fn that_are_no_name_of_botmesh_are_foreign() {
        for path in [
            "/botmesh",
            "/botmesh/x",
            "/botmesh/host",
            "/botmesh/host/Web",
            "/botmesh/host/a/b",
            "/botmesh/ca/a/b",
            "/botmesh/operator/a/b",
            "/botmesh/hosts/a",
            "/mesh/x",
            "/localhost",
            "/Prod/orders",
            "/prod/under_score",
            "/a/b/c/d/e/f/g",
        ] {
            assert_eq!(id(&format!("spiffe://acme{path}")).kind(), IdKind::Foreign, "{path}");
        }
    }
}

mod bot_names {
    use super::*;

    #[test]
    fn have_one_to_six_segments() {
        assert_eq!(bot("a").segments().collect::<Vec<_>>(), ["a"]);
        assert_eq!(bot("a/b/c/d/e/f").segments().count(), 6);
        assert_eq!(
            BotName::parse("a/b/c/d/e/f/g"),
            Err(IdError::TooManySegments { segments: 7 })
        );
    }

    #[test]
    fn have_segments_that_are_dns_labels() {
        let longest = "x".repeat(63);
        for good in ["0", "a-b", "a--b", "9z", longest.as_str()] {
            assert_eq!(bot(&format!("p/{good}")).as_str(), format!("p/{good}"));
        }
        let too_long = "x".repeat(64);
        for bad in [
            "",
            "-",
            "-a",
            "a-",
            "A",
            "a_b",
            "a.b",
            "a b",
            "é",
            "*",
            too_long.as_str(),
        ] {
            assert_eq!(
                BotName::parse(&format!("p/{bad}")),
                Err(IdError::Segment {
                    segment: bad.to_owned()
                }),
                "{bad:?}"
            );
        }
        assert!(BotName::parse("").is_err());
        assert!(BotName::parse("/a").is_err());
        assert!(BotName::parse("a/").is_err());
    }

    #[test]
    fn do_not_start_with_a_reserved_word() {
        for segment in ["botmesh", "mesh", "localhost"] {
            assert_eq!(BotName::parse(segment), Err(IdError::Reserved { segment }));
            assert_eq!(
                BotName::parse(&format!("{segment}/x")),
                Err(IdError::Reserved { segment })
            );
            assert!(BotName::parse(&format!("x/{segment}")).is_ok());
        }
    }

    #[test]
    fn map_to_mesh_hosts() {
        assert_eq!(bot("prod/orders").mesh_host(), "orders.prod.mesh");
        assert_eq!(bot("orders").mesh_host(), "orders.mesh");
        assert_eq!(BotName::from_mesh_host("orders.prod.mesh"), Some(bot("prod/orders")));
        assert_eq!(BotName::from_mesh_host("mesh.prod.mesh"), Some(bot("prod/mesh")));
    }

    #[test]
    fn are_not_read_from_other_hosts() {
        for host in [
            "",
            "mesh",
            ".mesh",
            "orders",
            "orders.prod",
            "orders..mesh",
            "orders.mesh.",
            "Orders.mesh",
            "orders.mesh:80",
            "orders.localhost.mesh",
            "x.mesh.mesh",
            "a/b.mesh",
            "g.f.e.d.c.b.a.mesh",
        ] {
            assert_eq!(BotName::from_mesh_host(host), None, "{host:?}");
        }
    }

    #[test]
    fn are_cut_short_in_errors() {
        let Err(IdError::Segment { segment }) = BotName::parse(&"é".repeat(100)) else {
            panic!("not refused as a segment");
        };
        assert_eq!(segment, "é".repeat(32));
        let Err(IdError::Segment { segment }) = BotName::parse(&format!("X{}", "é".repeat(100))) else {
            panic!("not refused as a segment");
        };
        assert_eq!(segment.len(), 63, "a character is not split");
    }
}

mod hosts {
    use super::*;

    #[test]
    fn are_one_segment() {
        assert_eq!(HostName::parse("web-1").unwrap().as_str(), "web-1");
        for bad in ["", "a/b", "Web", "a.b", "-a", "a-"] {
            assert_eq!(
                HostName::parse(bad),
                Err(IdError::Segment {
                    segment: bad.to_owned()
                }),
                "{bad:?}"
            );
        }
    }

    fn matches(pattern: &str, host: &str) -> bool {
        HostPattern::parse(pattern)
            .unwrap()
            .matches(&HostName::parse(host).unwrap())
    }

    #[test]
    fn match_a_whole_name_a_start_or_the_star() {
        assert!(matches("web-1", "web-1"));
        assert!(!matches("web-1", "web-11"));
        assert!(!matches("web-11", "web-1"));
        assert!(matches("web-*", "web-1"));
        assert!(matches("web*", "web-1"));
        assert!(!matches("web*", "web"), "the star stands for at least one character");
        assert!(!matches("web-*", "db-1"));
        assert!(!matches("eb-*", "web-1"));
        assert!(matches("*", "anything"));
    }

    #[test]
    fn have_patterns_of_three_forms_only() {
        let start = "x".repeat(62);
        assert!(HostPattern::parse(&format!("{start}*")).is_ok());
        for bad in [
            "",
            "**",
            "*-web",
            "web-*-1",
            "web?",
            "-*",
            "Web-*",
            "a.b",
            "a/*",
            &format!("{start}x*"),
        ] {
            assert_eq!(
                HostPattern::parse(bad),
                Err(IdError::Pattern {
                    pattern: bad.to_owned()
                }),
                "{bad:?}"
            );
        }
        assert_eq!(HostPattern::parse("web-*").unwrap().as_str(), "web-*");
    }
}

mod texts {
    use super::*;

    #[test]
    fn are_read_through_the_parser_in_every_form() {
        assert_eq!("acme".parse::<TrustDomain>(), Ok(domain("acme")));
        assert!("Acme".parse::<TrustDomain>().is_err());
        assert_eq!(
            serde_json::from_str::<SpiffeId>("\"spiffe://acme/x\"").unwrap(),
            id("spiffe://acme/x")
        );
        assert!(serde_json::from_str::<SpiffeId>("\"spiffe://acme/\"").is_err());
        assert!(
            serde_json::from_str::<BotName>("7")
                .unwrap_err()
                .to_string()
                .contains("BotName")
        );
        assert_eq!(serde_json::to_string(&bot("prod/orders")).unwrap(), "\"prod/orders\"");
    }

    #[test]
    fn are_shown_as_they_are() {
        assert_eq!(id("spiffe://acme/x").to_string(), "spiffe://acme/x");
        assert_eq!(format!("{:?}", domain("acme")), "TrustDomain(\"acme\")");
    }

    #[test]
    fn serve_as_keys_of_maps() {
        let map = std::collections::BTreeMap::from([(bot("prod/orders"), 1)]);
        let json = serde_json::to_string(&map).unwrap();
        assert_eq!(json, "{\"prod/orders\":1}");
        assert_eq!(
            serde_json::from_str::<std::collections::BTreeMap<BotName, i32>>(&json).unwrap(),
            map
        );
    }
}

proptest! {
    #[test]
    fn an_id_within_the_grammar_comes_back_as_it_was(
        name in "[a-z0-9._-]{1,255}",
        segments in prop::collection::vec("[a-zA-Z0-9_-][a-zA-Z0-9._-]{0,20}", 0..20),
    ) {
        let path: String = segments.iter().map(|segment| format!("/{segment}")).collect();
        let text = format!("spiffe://{name}{path}");
        let id = SpiffeId::parse(&text).unwrap();
        prop_assert_eq!(id.as_str(), &text);
        prop_assert_eq!(id.trust_domain_str(), &name);
        prop_assert_eq!(id.path(), &path);
        prop_assert_eq!(id.to_string().parse::<SpiffeId>().unwrap(), id);
    }

    #[test]
    fn any_text_is_refused_or_comes_back_as_it_was(text in any::<String>()) {
        if let Ok(id) = SpiffeId::parse(&text) {
            prop_assert_eq!(id.as_str(), text);
        }
    }

    #[test]
    fn a_bot_and_its_mesh_host_name_each_other(
        segments in prop::collection::vec("[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", 1..=6),
    ) {
        prop_assume!(!["botmesh", "mesh", "localhost"].contains(&segments[0].as_str()));
        let bot = BotName::parse(&segments.join("/")).unwrap();
        let reversed: Vec<_> = segments.iter().rev().cloned().collect();
        prop_assert_eq!(bot.mesh_host(), format!("{}.mesh", reversed.join(".")));
        prop_assert_eq!(BotName::from_mesh_host(&bot.mesh_host()), Some(bot.clone()));
        let id = SpiffeId::for_bot(&domain("acme"), &bot);
        prop_assert_eq!(SpiffeId::parse(id.as_str()).unwrap().kind(), IdKind::Bot(bot));
    }

    #[test]
    fn a_host_within_a_pattern_matches_it(start in "[a-z0-9][a-z0-9-]{0,30}", rest in "[a-z0-9-]{0,30}[a-z0-9]") {
        let host = HostName::parse(&format!("{start}{rest}")).unwrap();
        let pattern = HostPattern::parse(&format!("{start}*")).unwrap();
        prop_assert!(pattern.matches(&host));
        prop_assert!(HostPattern::parse(host.as_str()).unwrap().matches(&host));
    }
}
