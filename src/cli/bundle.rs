//! `bundle show`: the documents of the federation endpoint, to be brought to those who cannot fetch them.

use anyhow::Result;
use ca_api::admin::{BundleDocuments, path};

use crate::args::{Bundle, Format};
use crate::cli::Context;
use crate::client::{Peer, Server};
use crate::exit::{Exit, Failure};

/// Runs it.
pub(crate) async fn run(command: Bundle, context: &Context) -> Result<Exit> {
    let Bundle::Show(args) = command;
    let server = Server::find(Peer::Ca, context.global.server.as_deref())?;
    let documents: BundleDocuments = server.get(path::BUNDLE).await?;
    let document = if args.jwks {
        documents.jwks.ok_or_else(|| {
            Failure::new(Exit::Findings, "the CA signs no tokens")
                .hint("write `federation: {issuer: https://…}` in ca.yaml and start the CA again")
        })?
    } else {
        documents.bundle
    };
    // As it is, whatever was asked for: a member of ours is not part of a format that others read.
    let text = match context.screen.format {
        Format::Jsonl => serde_json::to_string(&document)?,
        Format::Json | Format::Table => serde_json::to_string_pretty(&document)?,
    };
    context.screen.line(text)?;
    Ok(Exit::Fine)
}
