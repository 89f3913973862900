//! Keys of known services, and of AWS.

use std::collections::BTreeSet;

use zeroize::Zeroizing;

use super::super::Variable;
use super::super::known::{PUBLIC, SERVICES, Service, WORKED_WITH, Way};
use super::url::Url;
use super::{DUMMY, Work};
use crate::outside::{Outside, Scheme};

/// Services of AWS that names of variables tell of, and how they are called.
const AWS: [(&str, &str, &[&str]); 5] = [
    ("SQS", "sqs", &["POST /**"]),
    ("DYNAMODB", "dynamodb", &["POST /"]),
    ("SES", "email", &["POST /**"]),
    ("LAMBDA", "lambda", &["POST /2015-03-31/functions/*/invocations"]),
    ("S3", "s3", &["GET /**", "HEAD /**", "PUT /**"]),
];

impl<'v> Work<'v> {
    pub(super) fn services(&mut self) {
        for service in &SERVICES {
            let keys = self.keys_of(service);
            if let Some(key) = keys.first() {
                self.service(service, key, &keys);
            }
        }
    }

    /// The variables that have a key of it: by their names, and then by their looks.
    fn keys_of(&self, service: &Service) -> Vec<&'v Variable> {
        let named: Vec<_> = service.keys.iter().filter_map(|name| self.of(name)).collect();
        let known = |name: &str| PUBLIC.contains(&name) || WORKED_WITH.iter().any(|(worked, _)| *worked == name);
        let elsewhere = |name: &str| {
            let mut others = SERVICES.iter();
            others.any(|other| other.keys.contains(&name) || other.addresses.contains(&name))
        };
        let looking = self.looks.iter().filter(|(name, looks)| {
            looks.whole && service.looks.contains(&looks.kind) && !known(name) && !elsewhere(name)
        });
        let looking = looking.filter_map(|(name, _)| self.of(name));
        named.into_iter().chain(looking).collect()
    }

    fn service(&mut self, service: &Service, key: &'v Variable, keys: &[&'v Variable]) {
        let address = service.addresses.iter().find_map(|name| self.of(name));
        let said = address.and_then(|address| Url::read(address.text()));
        let (to, base) = match said {
            // What else is in it would be lost.
            Some(url) if url.user.is_some() || url.more => (None, None),
            Some(url) => (url.outside(), url.base()),
            None if address.is_some() => (None, None),
            None => (
                Outside::parse(&format!("https://{}", service.host)).ok(),
                Some(service.base),
            ),
        };
        let (Some(to), Some(base)) = (to.filter(|to| to.scheme() == Scheme::Https), base) else {
            let at = address.map(|address| address.name.as_str()).unwrap_or_default();
            self.leave(
                &key.name,
                &format!("{at} is no address at which a key could be added: it takes https:// and a DNS name"),
            );
            return;
        };
        if self.proposal.leads.iter().any(|leads| leads.to == to) {
            return self.leave(
                &key.name,
                "another key for the same host: which of them a rule adds is yours to say",
            );
        }
        let how = match service.way {
            Way::Bearer => "bearer: true".to_owned(),
            Way::Header(name) => format!("header: {name}"),
        };
        let (same, others): (Vec<&Variable>, Vec<&Variable>) =
            keys.iter().copied().partition(|other| other.value == key.value);
        let name = self.add(service.name, how, &same, key.value.clone());
        let calls = service.calls.iter().filter_map(|call| call.split_once(' '));
        let calls = calls.map(|(method, path)| format!("{method} {base}{path}")).collect();
        let port = self.lead(to, calls, Some(name));
        let here = format!("http://127.0.0.1:{port}{base}");
        match (address, service.addresses.first()) {
            (Some(address), _) => self.becomes(address, Some(here)),
            (None, Some(named)) => self.sets(named, here),
            (None, None) => self
                .proposal
                .environment
                .push((None, Some(format!("{}: {here}", service.name)))),
        }
        for variable in same {
            self.becomes(variable, Some(DUMMY.to_owned()));
        }
        for other in others {
            let why = format!(
                "another key of the same service than {}: which one a rule adds is yours to say",
                key.name
            );
            self.leave(&other.name, &why);
        }
    }

    /// AWS signs with two or three variables and a region.
    pub(super) fn aws(&mut self) {
        if let Err(why) = self.sign_for_aws() {
            for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"] {
                self.leave(name, why);
            }
        }
    }

    fn sign_for_aws(&mut self) -> Result<(), &'static str> {
        let (id, secret) = (self.of("AWS_ACCESS_KEY_ID"), self.of("AWS_SECRET_ACCESS_KEY"));
        let (Some(id), Some(secret)) = (id, secret) else {
            return Err("AWS signs with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and only one of them is here");
        };
        let token = self.of("AWS_SESSION_TOKEN");
        if self
            .variables
            .keys()
            .any(|name| name.contains("ENDPOINT") && (name.starts_with("AWS") || name.starts_with("S3")))
        {
            return Err("it signs for another address than those of AWS: write `sigv4` and a rule for that one");
        }
        let region = self
            .region()
            .ok_or("AWS signs for a region, and neither AWS_REGION nor AWS_DEFAULT_REGION has one here")?;
        let words: BTreeSet<&str> = self.variables.keys().flat_map(|name| name.split('_')).collect();
        let found = AWS.iter().find(|(word, ..)| words.contains(word));
        let (word, service, calls) = found.or(AWS.last()).ok_or("there is no service")?;
        let to = Outside::parse(&format!("https://{service}.{region}.amazonaws.com"))
            .map_err(|_none| "its region is none")?;
        let parts = [Some(id), Some(secret), token].into_iter().flatten();
        let from: Vec<&Variable> = parts.collect();
        let value = from
            .iter()
            .map(|variable| variable.value.as_ref().map(|value| value.as_str()));
        let value = value
            .collect::<Option<Vec<&str>>>()
            .map(|parts| Zeroizing::new(parts.join(":")));
        let how = format!("sigv4: {{region: {region}, service: {service}}}");
        let name = self.add("aws", how, &from, value);
        let port = self.lead(to, calls.iter().map(|call| (*call).to_owned()).collect(), Some(name));
        self.sets(&format!("AWS_ENDPOINT_URL_{word}"), format!("http://127.0.0.1:{port}"));
        self.becomes(id, Some(DUMMY.to_owned()));
        self.becomes(secret, Some(DUMMY.to_owned()));
        if let Some(token) = token {
            self.becomes(token, None);
        }
        Ok(())
    }

    fn region(&self) -> Option<&'v str> {
        let letters = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let set = ["AWS_REGION", "AWS_DEFAULT_REGION"]
            .into_iter()
            .find_map(|name| self.of(name));
        let region = set?.text();
        ((1..=32).contains(&region.len()) && region.bytes().all(letters)).then_some(region)
    }
}
