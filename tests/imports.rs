//! `botmesh import env`: from the secrets of a bot's environment to a mesh file without them, and to values on its host.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;

use crate::credentials::scene::nobody_has_a_key;
use crate::outside::scene::Scene;
use crate::support::{both, botmesh, ok, root_or_skip, run};

/// Put together here, so that nobody who looks for keys finds one in this file.
fn key(prefix: &str) -> String {
    [prefix, "0123456789abcdefghijABCDEFGHIJ012345"].concat()
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }
}

fn import(from: &str, path: &Path, more: &[&str]) -> Output {
    run(botmesh().args(["import", "env", "--from", from]).arg(path).args(more))
}

/// The proposal, which passes `policy check` beside a mesh that has the bot and nothing more.
fn proposed(folder: &Folder, told: &Output, bot: &str) -> String {
    let text = String::from_utf8(told.stdout.clone()).unwrap();
    let mesh = format!(
        "version: 1\ntrust_domain: acme.internal\nbots:\n  {bot}: {{owner: o, hosts: [web-1], attest: {{uid: 2000}}}}\n"
    );
    let mesh = folder.write("mesh.d/mesh.yaml", &mesh);
    folder.write("mesh.d/proposal.yaml", &text);
    let checked = ok(botmesh().args(["policy", "check"]).arg(mesh.parent().unwrap()));
    assert!(checked.contains("1 bots"), "{checked}");
    text
}

#[test]
fn a_unit_with_all_that_it_reads_becomes_a_mesh_file_without_its_secrets() {
    let folder = Folder::new();
    let (anthropic, github) = (key("sk-ant-"), key("ghp_"));
    let shared = folder.write("etc/shared.env", &format!("GH_TOKEN=\"{github}\"\nGONE_TOKEN=x\n"));
    let unit = format!(
        "[Unit]\nDescription=support\n[Service]\nEnvironment=\"ANTHROPIC_API_KEY={anthropic}\" LOG=debug\n\
         EnvironmentFile={}\nEnvironmentFile=-/nowhere/at/all.env\nExecStart=/usr/bin/support\n",
        shared.display()
    );
    let unit = folder.write("support-bot.service", &unit);
    folder.write(
        "support-bot.service.d/10-more.conf",
        "[Service]\nEnvironment=SESSION_SECRET=s3ss10n-of-nobody\nUnsetEnvironment=GONE_TOKEN\n",
    );
    let told = import("unit", &unit, &["--owner", "cx@acme.internal"]);
    assert_eq!(
        told.status.code(),
        Some(1),
        "there is something to decide: {}",
        both(&told)
    );
    let text = proposed(&folder, &told, "support-bot");
    for line in [
        "  anthropic: {header: x-api-key, owner: \"cx@acme.internal\"}",
        "  github: {bearer: true, owner: \"cx@acme.internal\"}",
        "#   GH_TOKEN=added-by-the-proxy",
        "# Nothing secret was seen in these, which stay: LOG",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
    assert!(
        text.contains("#   SESSION_SECRET (line 2): the bot signs or checks cookies with it"),
        "{text}"
    );
    assert!(!text.contains("GONE_TOKEN"), "{text}");
    let json = import("unit", &unit, &["-o", "json", "-v"]);
    let told = both(&json);
    let document: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(document["bot"], "support-bot");
    assert_eq!(document["undecided"][0]["name"], "SESSION_SECRET");
    for secret in [anthropic.as_str(), &github, "s3ss10n"] {
        assert!(!text.contains(secret) && !told.contains(secret), "{secret}: {told}");
    }
}

#[test]
fn a_service_of_compose_reads_its_files_first_and_a_dotenv_file_is_named_after_its_folder() {
    let folder = Folder::new();
    folder.write("shop/web.env", "OPENAI_API_KEY=old\nCRM_URL=https://crm.example.com\n");
    let compose = folder.write(
        "shop/compose.yaml",
        "services:\n  web:\n    env_file: [web.env, {path: none.env, required: false}]\n    environment: {OPENAI_API_KEY: new}\n  db: {image: postgres}\n",
    );
    let several = import("compose", &compose, &[]);
    assert_eq!(several.status.code(), Some(3));
    assert!(both(&several).contains("--service: web, db"), "{}", both(&several));
    let told = import("compose", &compose, &["--service", "web"]);
    assert_eq!(told.status.code(), Some(0), "{}", both(&told));
    let text = proposed(&folder, &told, "web");
    assert!(
        text.contains("to: \"https://api.openai.com\"") && text.contains("to: \"https://crm.example.com\""),
        "{text}"
    );
    let again = format!("--from compose {} --service web --put", compose.display());
    assert!(text.contains(&again), "{text}");
    let dotenv = folder.write("Shop Bot/.env", "OPENAI_API_KEY=x\n");
    let text = proposed(&folder, &import("dotenv", &dotenv, &[]), "shop-bot");
    assert!(text.contains("from: shop-bot"), "{text}");
    let named = import("dotenv", &dotenv, &["--bot", "prod/shop"]);
    assert!(proposed(&folder, &named, "prod/shop").contains("id: prod-shop-openai"));
}

#[test]
fn what_is_no_environment_is_refused_with_its_line_and_without_its_value() {
    let folder = Folder::new();
    let bad = folder.write("a/.env", "A=1\nB='s3cret\n");
    let glob = folder.write("a.service", "[Service]\nEnvironmentFile=/etc/a/*.env\n");
    let missing = folder.write("b.service", "[Service]\nEnvironmentFile=/nowhere/at/all.env\n");
    let large = folder.write("large/.env", &"#".repeat(1024 * 1024 + 1));
    for (from, path, code, words) in [
        ("dotenv", bad.as_path(), 3, ".env: line 2: the quote"),
        ("unit", &glob, 3, "names no one file"),
        ("unit", &missing, 3, "cannot read /nowhere/at/all.env"),
        ("dotenv", &large, 3, "is larger than"),
        ("dotenv", Path::new("/nowhere/.env"), 3, "cannot read /nowhere/.env"),
    ] {
        let told = import(from, path, &[]);
        let said = both(&told);
        assert_eq!(told.status.code(), Some(code), "{said}");
        assert!(said.contains(words) && !said.contains("s3cret"), "{said}");
    }
    let fine = folder.write("fine/.env", "A=1\n");
    assert_eq!(import("dotenv", &fine, &["--service", "web"]).status.code(), Some(2));
    let broken = import("dotenv", &fine, &["--owner", "a\nb", "--bot", "a"]);
    assert_eq!(
        broken.status.code(),
        Some(0),
        "an owner of whom nothing is proposed: {}",
        both(&broken)
    );
    let one = folder.write("one/.env", "GH_TOKEN=x\n");
    let broken = import("dotenv", &one, &["--owner", "a\nb"]);
    assert_eq!(
        (broken.status.code(), broken.stdout.len()),
        (Some(1), 0),
        "{}",
        both(&broken)
    );
    assert!(both(&broken).contains("no valid mesh file"), "{}", both(&broken));
    let many = folder.write("many.service", "[Service]\n");
    for number in 0..=100 {
        folder.write(&format!("many.service.d/{number}.conf"), "");
    }
    assert!(both(&import("unit", &many, &[])).contains("has more than 100 files"));
    let nameless = folder.write("%/.env", "A=1\n");
    let told = import("dotenv", &nameless, &[]);
    assert_eq!(told.status.code(), Some(2), "{}", both(&told));
    assert!(both(&told).contains("say --bot NAME"), "{}", both(&told));
}

#[test]
fn values_go_from_the_file_to_the_host_and_are_shown_to_nobody() {
    if !root_or_skip("imports") {
        return;
    }
    let folder = Folder::new();
    let scene = Scene::new("");
    let secret = crate::credentials::scene::X_KEY;
    let text = format!("ANTHROPIC_API_KEY='{secret}'\nCOHERE_API_KEY\n");
    let dotenv = folder.write("bot/.env", &text);
    let admin = scene.host().admin();
    let put = || {
        import(
            "dotenv",
            &dotenv,
            &["--bot", "prod/checkout", "--put", "--server", &admin],
        )
    };
    scene.apply(&[], &[], "");
    let early = put();
    assert!(!early.status.success(), "{}", both(&early));
    assert!(both(&early).contains("anthropic"), "{}", both(&early));
    let told = import(
        "dotenv",
        &dotenv,
        &["--bot", "prod/checkout", "--owner", "cx@acme.internal"],
    );
    let proposal = String::from_utf8(told.stdout).unwrap();
    scene.apply(
        &[],
        &[],
        proposal
            .trim_start_matches(|letter| letter != '\n')
            .trim_start()
            .trim_start_matches("version: 1\n"),
    );
    let told = put();
    assert_eq!(told.status.code(), Some(1), "one has no value: {}", both(&told));
    assert!(
        both(&told).contains("ok anthropic is on this host (fingerprint "),
        "{}",
        both(&told)
    );
    assert!(both(&told).contains("botmesh secret put cohere"), "{}", both(&told));
    assert!(!both(&told).contains(secret), "{}", both(&told));
    let listed = ok(botmesh().args(["secret", "list", "--server", &admin]));
    let line = listed.lines().find(|line| line.contains("anthropic")).unwrap();
    assert!(line.contains("prod/checkout") && line.contains("in use"), "{listed}");
    fs::remove_file(dotenv).unwrap();
    nobody_has_a_key(&scene);
}
