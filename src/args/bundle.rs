//! `bundle`: what others verify identities of this mesh by.

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum Bundle {
    /// Prints the trust bundle, for those who cannot fetch it from the CA's federation endpoint
    Show(BundleShow),
}

#[derive(Debug, Args)]
pub(crate) struct BundleShow {
    /// The keys of tokens alone, as relying parties of OpenID Connect read them
    #[arg(long)]
    pub(crate) jwks: bool,
}
