//! `help CODE` explains a diagnostic; `help COMMAND` a command.

use anyhow::Result;
use clap::CommandFactory;

use crate::args::{Cli, Help};
use crate::exit::{Exit, Failure};
use crate::output::Screen;

/// Prints the explanation.
pub(crate) fn run(args: &Help, screen: &Screen) -> Result<Exit> {
    screen.line(text(&args.topic)?.trim_end())?;
    Ok(Exit::Fine)
}

fn text(topic: &[String]) -> Result<String> {
    let mut command = Cli::command();
    command.build();
    let mut found = &mut command;
    for word in topic {
        if let Some(page) = policy::explain_code(&word.to_ascii_uppercase()) {
            return Ok(page.to_owned());
        }
        found = found.find_subcommand_mut(word).ok_or_else(|| {
            Failure::usage(format!("nothing is known of `{word}`"))
                .hint("a code looks like BM0120; `botmesh --help` lists the commands")
        })?;
    }
    Ok(found.render_long_help().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::code_of;

    fn help(topic: &[&str]) -> Result<String> {
        text(&topic.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn a_known_code_and_a_command_are_explained() {
        for (topic, wanted) in [
            (&["BM0190"][..], "not enforced"),
            (&["bm0190"], "not enforced"),
            (&["policy", "explain"], "--exit-code"),
            (&[], "botmesh demo"),
        ] {
            let text = help(topic).unwrap();
            assert!(text.contains(wanted), "{topic:?}: {text}");
        }
    }

    #[test]
    fn an_unknown_topic_is_a_usage_error() {
        for topic in [&["BM9999"][..], &["policy", "enforce"]] {
            assert_eq!(code_of(&help(topic).unwrap_err()), Exit::Usage, "{topic:?}");
        }
    }
}
