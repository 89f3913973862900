//! No bytes make the readers of environments panic, and whatever they read comes to a mesh file that is one.

#![no_main]

use libfuzzer_sys::fuzz_target;
use policy::import::dotenv::{self, Style};
use policy::import::{About, Variable, compose, propose, unit, write};
use policy::{Source, load};
use spiffe::id::BotName;

fn proposed(variables: &[Variable]) {
    let bot = BotName::parse("a/b").expect("a name");
    let about = About { bot: &bot, owner: "o" };
    let proposal = propose(about, variables, |_value| None);
    let text = write(&proposal, "again");
    let around = "version: 1\ntrust_domain: a.b\nbots:\n  a/b: {owner: o, hosts: [h], attest: {uid: 1}}\n";
    let source = |name: &str, text: &str| Source { name: name.to_owned(), text: text.to_owned() };
    if let Err(errors) = load(&[source("mesh", around), source("proposal", &text)]) {
        panic!("{}\n{text}", errors.render(false));
    }
}

fuzz_target!(|text: &str| {
    for style in [Style::Dotenv, Style::Systemd] {
        if let Ok(variables) = dotenv::read(text, style) {
            proposed(&variables);
        }
    }
    if let Ok(unit) = unit::read([text]) {
        proposed(&unit.variables);
    }
    if let Ok(service) = compose::read(text, None) {
        proposed(&service.variables);
    }
});
