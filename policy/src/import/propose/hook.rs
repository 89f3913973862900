//! Webhooks: addresses that are keys, each of which a credential holds.

use super::super::known::{HOOKS, Hook};
use super::Work;
use super::url::Url;
use crate::outside::{Outside, Scheme};

impl Work<'_> {
    /// Proposes `secret://` for every variable whose value is the address of a webhook, whatever the variable is called.
    pub(super) fn hooks(&mut self) {
        let names: Vec<_> = self.variables.keys().copied().collect();
        for name in names {
            let Some(variable) = self.of(name) else { continue };
            let Some((hook, to)) = known(variable.text()) else {
                continue;
            };
            // Two variables with one address are one credential.
            let same = self
                .proposal
                .added
                .iter_mut()
                .find(|added| added.value == variable.value);
            let credential = match same {
                Some(same) => {
                    same.variables.push(variable.name.clone());
                    same.name.clone()
                }
                None => self.add(hook.name, format!("url: \"{to}\""), &[variable], variable.value.clone()),
            };
            let Ok(to) = Outside::parse(&format!("{}://{credential}", Scheme::Secret)) else {
                continue;
            };
            let port = self.lead(to, vec!["POST /".to_owned()], None);
            self.becomes(variable, Some(format!("http://127.0.0.1:{port}/")));
        }
    }
}

/// Tells which kind of webhook an address is, and where it leads.
fn known(text: &str) -> Option<(&'static Hook, Outside)> {
    let url = Url::read(text).filter(|url| url.user.is_none())?;
    let to = url.outside().filter(|to| to.scheme() == Scheme::Https)?;
    let is_host = |hook: &Hook| match hook.host.strip_prefix('.') {
        Some(_) => to.host().ends_with(hook.host),
        None => to.host() == hook.host,
    };
    let mut hooks = HOOKS.iter();
    let hook = hooks.find(|hook| is_host(hook) && url.path.len() > hook.path.len() && url.path.starts_with(hook.path));
    Some((hook?, to))
}
