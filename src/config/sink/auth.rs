//! `auth` of a sink: where its keys come from.

use super::super::load::Loader;
use crate::identity::{AssumeRoleSettings, EcsRoleSettings, Endpoints, IdentitySettings, RrsaSettings, Source};
use crate::yaml::{Map, Node};
use std::time::Duration;

/// What `type` can be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Type {
    Auto,
    Keys,
    Environment,
    Rrsa,
    EcsRole,
    AssumeRole,
}

const TYPES: &[(&str, Type)] = &[
    ("auto", Type::Auto),
    ("keys", Type::Keys),
    ("environment", Type::Environment),
    ("rrsa", Type::Rrsa),
    ("ecs_role", Type::EcsRole),
    ("assume_role", Type::AssumeRole),
];

/// The keys that go with each type, besides `type` itself.
pub(in super::super) const KEYS_BY_TYPE: &[(&str, &[&str])] = &[
    ("auto", &["sts", "sts_connect_to", "duration", "metadata"]),
    ("keys", &["access_key_id", "access_key_secret", "security_token"]),
    ("environment", &[]),
    ("rrsa", &["role_arn", "provider_arn", "token_file", "session_name", "sts", "sts_connect_to", "duration"]),
    ("ecs_role", &["role", "only_v2", "metadata"]),
    (
        "assume_role",
        &["role_arn", "session_name", "external_id", "base", "sts", "sts_connect_to", "duration", "metadata"],
    ),
];

/// Keys of an `auth` that is the base of another: the endpoints are written once, outside.
const ENDPOINT_KEYS: &[&str] = &["sts", "sts_connect_to", "duration", "metadata"];

pub(super) fn settings(loader: &mut Loader<'_>, node: &Node) -> IdentitySettings {
    let Some((map, kind)) = typed(loader, node, "`auth`") else { return IdentitySettings::default() };
    IdentitySettings { source: source(loader, &map, kind, true), endpoints: endpoints(loader, &map) }
}

/// The mapping and its type; keys of other types are reported.
fn typed<'n>(loader: &mut Loader<'_>, node: &'n Node, what: &str) -> Option<(Map<'n>, Type)> {
    let map = loader.reader.any_map(node, what)?;
    let kind = match map.get("type") {
        Some(_) => loader.word(&map, "type", TYPES)?,
        None => Type::Auto,
    };
    let (word, known) = KEYS_BY_TYPE[kind as usize];
    for entry in map.entries.iter().filter(|entry| entry.key != "type" && !known.contains(&entry.key.as_str())) {
        let owner = KEYS_BY_TYPE.iter().find(|(_, keys)| keys.contains(&entry.key.as_str()));
        match owner {
            Some((owner, _)) => {
                let title = format!("`{}` is no key of {what} with the type `{word}`", entry.key);
                let diagnostic = loader.reader.error("C11", entry.key_span, title, format!("a key of `{owner}`"));
                diagnostic.help(format!("write `type: {owner}`"));
            }
            None => {
                let known = [&["type"], known].concat();
                loader.reader.unknown_key(entry, &format!("{what} with the type `{word}`"), &known);
            }
        }
    }
    Some((map, kind))
}

fn source(loader: &mut Loader<'_>, map: &Map<'_>, kind: Type, may_assume: bool) -> Source {
    match kind {
        Type::Auto => Source::Auto,
        Type::Environment => Source::Environment,
        Type::Keys => keys(loader, map),
        Type::Rrsa => Source::Rrsa(RrsaSettings {
            role_arn: loader.text(map, "role_arn"),
            provider_arn: loader.text(map, "provider_arn"),
            token_file: loader.path(map, "token_file"),
            session_name: loader.text(map, "session_name"),
        }),
        Type::EcsRole => Source::EcsRole(EcsRoleSettings {
            role: loader.text(map, "role"),
            only_v2: loader.bool(map, "only_v2").unwrap_or_default(),
        }),
        Type::AssumeRole if may_assume => assume_role(loader, map),
        Type::AssumeRole => {
            let span = map.get("type").map_or(map.span, |node| node.span);
            let title = "a role cannot be assumed with an assumed role";
            loader.reader.error("C11", span, title, "the base of another role").help("write another type here");
            Source::Auto
        }
    }
}

fn keys(loader: &mut Loader<'_>, map: &Map<'_>) -> Source {
    let what = "`auth` with the type `keys`";
    loader.require(map, "access_key_id", what);
    loader.require(map, "access_key_secret", what);
    Source::Keys {
        id: loader.text(map, "access_key_id").unwrap_or_default(),
        secret: loader.secret(map, "access_key_secret").unwrap_or_default(),
        token: loader.secret(map, "security_token"),
    }
}

fn assume_role(loader: &mut Loader<'_>, map: &Map<'_>) -> Source {
    loader.require(map, "role_arn", "`auth` with the type `assume_role`");
    let base = map.get("base").and_then(|node| {
        let (base, kind) = typed(loader, node, "`base`")?;
        for entry in base.entries.iter().filter(|entry| ENDPOINT_KEYS.contains(&entry.key.as_str())) {
            let title = format!("`{}` is the same for `auth` and its `base`", entry.key);
            loader.reader.error("C11", entry.key_span, title, "once is enough").help("write it under `auth`");
        }
        Some(source(loader, &base, kind, false))
    });
    Source::AssumeRole(AssumeRoleSettings {
        role_arn: loader.text(map, "role_arn").unwrap_or_default(),
        session_name: loader.text(map, "session_name"),
        external_id: loader.text(map, "external_id"),
        base: Box::new(base.unwrap_or_default()),
    })
}

fn endpoints(loader: &mut Loader<'_>, map: &Map<'_>) -> Endpoints {
    let default = Endpoints::default();
    let range = Duration::from_secs(900)..=Duration::from_secs(12 * 3600);
    Endpoints {
        sts: loader.text(map, "sts"),
        sts_connect_to: loader.connect_to(map, "sts_connect_to"),
        duration_seconds: loader
            .duration(map, "duration", range)
            .map_or(default.duration_seconds, |duration| duration.as_secs() as u32),
        metadata: loader.text(map, "metadata").unwrap_or(default.metadata),
    }
}
