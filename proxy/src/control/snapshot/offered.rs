//! A slice as it came, from the CA or from disk, before anything of it is believed.

use std::collections::BTreeSet;

use ca_api::node;
use policy::{Generation, feature};

use super::{SliceError, from_wire, sha256};
use crate::control::state_dir::SavedSlice;

/// The most features that a refusal names.
const FEATURES_SAID: usize = 16;

/// A slice that has not been looked at.
#[derive(Clone, Debug)]
pub(in crate::control) struct OfferedSlice {
    pub(in crate::control) generation: Generation,
    pub(in crate::control) sha256: Vec<u8>,
    pub(in crate::control) json: Vec<u8>,
    /// What a host must be able to enforce to apply it, by the CA's word.
    pub(in crate::control) features: Vec<String>,
}

impl OfferedSlice {
    pub(in crate::control) fn from_wire(slice: node::Slice) -> Result<Self, SliceError> {
        let Some(generation) = slice.generation else {
            return Err(SliceError::NoGeneration);
        };
        Ok(Self {
            generation: from_wire(generation),
            sha256: slice.sha256,
            json: slice.json,
            features: slice.features,
        })
    }

    pub(in crate::control) fn from_saved(saved: SavedSlice) -> Self {
        let sha256 = sha256(saved.json.as_bytes()).to_vec();
        Self {
            generation: saved.generation,
            sha256,
            json: saved.json.into_bytes(),
            features: Vec::new(),
        }
    }

    pub(in crate::control) fn to_save(&self) -> SavedSlice {
        SavedSlice {
            generation: self.generation,
            json: String::from_utf8_lossy(&self.json).into_owned(),
        }
    }

    /// Refuses a slice that needs what this proxy does not enforce: the rest of it would
    /// be read as if that were not there.
    pub(super) fn enforceable(&self) -> Result<(), SliceError> {
        let lacking: BTreeSet<&str> = self
            .features
            .iter()
            .map(String::as_str)
            .filter(|word| !feature::ENFORCED.contains(word))
            .take(FEATURES_SAID)
            .collect();
        if lacking.is_empty() {
            return Ok(());
        }
        let words: Vec<_> = lacking
            .into_iter()
            .map(|word| word.escape_debug().to_string())
            .collect();
        Err(SliceError::Features {
            offered: self.generation,
            lacking: words.join(", "),
        })
    }
}
