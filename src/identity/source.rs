//! From settings and environment to one way of obtaining keys.

use super::{
    AssumeRole, AssumeRoleSettings, ClockOffset, Credentials, EcsRole, EcsRoleSettings, Endpoints, Error, FailureCause,
    Identity, IdentitySettings, Obtain, Obtained, Rrsa, RrsaSettings, Secret, Source, World, sts::Sts,
};
use crate::http_client::{Client, ClientSettings};
use std::{future::Future, path::PathBuf, pin::Pin, time::Duration};

const KEY_ID: &str = "ALIBABA_CLOUD_ACCESS_KEY_ID";
const KEY_SECRET: &str = "ALIBABA_CLOUD_ACCESS_KEY_SECRET";
const KEY_TOKEN: &str = "ALIBABA_CLOUD_SECURITY_TOKEN";
const ROLE_ARN: &str = "ALIBABA_CLOUD_ROLE_ARN";
const PROVIDER_ARN: &str = "ALIBABA_CLOUD_OIDC_PROVIDER_ARN";
const TOKEN_FILE: &str = "ALIBABA_CLOUD_OIDC_TOKEN_FILE";
const SESSION_NAME: &str = "ALIBABA_CLOUD_ROLE_SESSION_NAME";
const STS_REGION: &str = "ALIBABA_CLOUD_STS_REGION";
const VPC_ENDPOINT: &str = "ALIBABA_CLOUD_VPC_ENDPOINT_ENABLED";
const ECS_ROLE: &str = "ALIBABA_CLOUD_ECS_METADATA";
const ECS_DISABLED: &str = "ALIBABA_CLOUD_ECS_METADATA_DISABLED";
const IMDSV1_DISABLED: &str = "ALIBABA_CLOUD_IMDSV1_DISABLED";

/// Keys that are given and stay.
struct Fixed {
    name: &'static str,
    credentials: Credentials,
}

impl Obtain for Fixed {
    fn obtain(&self) -> Pin<Box<dyn Future<Output = Result<Obtained, Error>> + Send + '_>> {
        Box::pin(async { Ok(Obtained { credentials: self.credentials.clone(), request_id: None }) })
    }

    fn name(&self) -> &'static str {
        self.name
    }
}

/// Chooses by settings and, where they leave it open, by variables. Nothing is asked over the network.
pub(super) fn choose(settings: &IdentitySettings, world: &World) -> Result<Box<dyn Obtain>, Error> {
    let chooser = Chooser { endpoints: &settings.endpoints, world };
    match &settings.source {
        Source::AssumeRole(role) => chooser.assume_role(role),
        other => chooser.base(other),
    }
}

struct Chooser<'a> {
    endpoints: &'a Endpoints,
    world: &'a World,
}

impl Chooser<'_> {
    fn base(&self, source: &Source) -> Result<Box<dyn Obtain>, Error> {
        match source {
            Source::Auto => self.auto(),
            Source::Keys { id, secret, token } => given_keys(id, secret, token.as_ref()),
            Source::Environment => self.environment()?.ok_or_else(|| {
                Error::new("environment", FailureCause::Settings, format!("{KEY_ID} and {KEY_SECRET} are not set"))
            }),
            Source::Rrsa(settings) => self.rrsa(settings)?.ok_or_else(|| {
                let needed = "role_arn, provider_arn and token_file";
                Error::new(
                    "RRSA",
                    FailureCause::Settings,
                    format!("none of {needed} is given, nor {ROLE_ARN}, {PROVIDER_ARN}, {TOKEN_FILE}"),
                )
            }),
            Source::EcsRole(settings) => self.ecs_role(settings),
            Source::AssumeRole(_) => {
                Err(Error::new("AssumeRole", FailureCause::Settings, "its base cannot be another assume_role"))
            }
        }
    }

    fn auto(&self) -> Result<Box<dyn Obtain>, Error> {
        if let Some(keys) = self.environment()? {
            return Ok(keys);
        }
        // Before the ECS role: in a pod that one belongs to the node.
        if let Some(rrsa) = self.rrsa(&RrsaSettings::default())? {
            return Ok(rrsa);
        }
        if self.is_true(ECS_DISABLED) {
            let what = format!("set {KEY_ID} and {KEY_SECRET}, or enable RRSA; {ECS_DISABLED} rules out the ECS role");
            return Err(Error::new("auto", FailureCause::Settings, what));
        }
        self.ecs_role(&EcsRoleSettings::default())
    }

    fn environment(&self) -> Result<Option<Box<dyn Obtain>>, Error> {
        let (id, secret, token) = (self.variable(KEY_ID), self.variable(KEY_SECRET), self.variable(KEY_TOKEN));
        match (id, secret) {
            (None, None) if token.is_none() => Ok(None),
            (Some(id), Some(secret)) => {
                let credentials = Credentials::new("environment", (&id, &secret, token.as_deref()), None)?;
                Ok(Some(Box::new(Fixed { name: "environment", credentials })))
            }
            (id, _) => {
                let missing = if id.is_none() { KEY_ID } else { KEY_SECRET };
                Err(Error::new(
                    "environment",
                    FailureCause::Settings,
                    format!("half set: {missing} is missing; set it, or none of the three"),
                ))
            }
        }
    }

    fn rrsa(&self, settings: &RrsaSettings) -> Result<Option<Box<dyn Obtain>>, Error> {
        let role_arn = settings.role_arn.clone().or_else(|| self.variable(ROLE_ARN));
        let provider_arn = settings.provider_arn.clone().or_else(|| self.variable(PROVIDER_ARN));
        let token_file = settings.token_file.clone().or_else(|| self.variable(TOKEN_FILE).map(PathBuf::from));
        let missing: Vec<&str> = [
            (role_arn.is_none(), ROLE_ARN),
            (provider_arn.is_none(), PROVIDER_ARN),
            (token_file.is_none(), TOKEN_FILE),
        ]
        .into_iter()
        .filter_map(|(is_missing, name)| is_missing.then_some(name))
        .collect();
        match (role_arn, provider_arn, token_file) {
            (Some(role_arn), Some(provider_arn), Some(token_file)) => Ok(Some(Box::new(Rrsa {
                sts: self.sts("RRSA")?,
                role_arn,
                provider_arn,
                token_file,
                session_name: self.session_name(settings.session_name.as_ref()),
            }))),
            _ if missing.len() == 3 => Ok(None),
            _ => {
                let missing = missing.join(" and ");
                Err(Error::new(
                    "RRSA",
                    FailureCause::Settings,
                    format!("half set: {missing} missing; set all three, or none"),
                ))
            }
        }
    }

    fn ecs_role(&self, settings: &EcsRoleSettings) -> Result<Box<dyn Obtain>, Error> {
        let timeout = Duration::from_secs(1);
        let settings_of_client = ClientSettings { tls: None, connect_timeout: timeout, timeout, ..Default::default() };
        let client =
            Client::new(settings_of_client).map_err(|what| Error::new("ECS role", FailureCause::Settings, what))?;
        Ok(Box::new(EcsRole {
            base: self.endpoints.metadata.trim_end_matches('/').to_owned(),
            client,
            role: settings.role.clone().or_else(|| self.variable(ECS_ROLE)),
            only_v2: settings.only_v2 || self.is_true(IMDSV1_DISABLED),
        }))
    }

    fn assume_role(&self, settings: &AssumeRoleSettings) -> Result<Box<dyn Obtain>, Error> {
        if settings.role_arn.is_empty() {
            return Err(Error::new(
                "AssumeRole",
                FailureCause::Settings,
                "role_arn is empty; write acs:ram::ACCOUNT:role/NAME",
            ));
        }
        Ok(Box::new(AssumeRole {
            sts: self.sts("AssumeRole")?,
            base: Identity::keep(self.base(&settings.base)?, self.world.clone()),
            role_arn: settings.role_arn.clone(),
            session_name: self.session_name(settings.session_name.as_ref()),
            external_id: settings.external_id.clone(),
        }))
    }

    fn sts(&self, source: &'static str) -> Result<Sts, Error> {
        let base = match &self.endpoints.sts {
            Some(given) if given.contains("://") => given.trim_end_matches('/').to_owned(),
            Some(given) => format!("https://{given}"),
            None => match self.variable(STS_REGION) {
                Some(region) if self.is_true(VPC_ENDPOINT) => format!("https://sts-vpc.{region}.aliyuncs.com"),
                Some(region) => format!("https://sts.{region}.aliyuncs.com"),
                None if self.is_true(VPC_ENDPOINT) => {
                    let what = format!("half set: {VPC_ENDPOINT} is true, but {STS_REGION} is missing");
                    return Err(Error::new(source, FailureCause::Settings, what));
                }
                None => "https://sts.aliyuncs.com".to_owned(),
            },
        };
        let settings = ClientSettings {
            tls: base.starts_with("https:").then(Default::default),
            connect_to: self.endpoints.sts_connect_to.clone(),
            ..Default::default()
        };
        let client = Client::new(settings).map_err(|what| Error::new(source, FailureCause::Settings, what))?;
        let duration_seconds = self.endpoints.duration_seconds;
        let (world, offset) = (self.world.clone(), ClockOffset::default());
        Ok(Sts { base, client, duration_seconds, world, offset })
    }

    fn session_name(&self, given: Option<&String>) -> String {
        given.cloned().or_else(|| self.variable(SESSION_NAME)).unwrap_or_else(|| "tailkeep".to_owned())
    }

    /// A variable that is set to nothing counts as not set.
    fn variable(&self, name: &str) -> Option<String> {
        (self.world.variable)(name).filter(|value| !value.is_empty())
    }

    fn is_true(&self, name: &str) -> bool {
        self.variable(name).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }
}

fn given_keys(id: &str, secret: &Secret, token: Option<&Secret>) -> Result<Box<dyn Obtain>, Error> {
    if id.is_empty() || secret.is_empty() {
        let missing = if id.is_empty() { "access_key_id" } else { "access_key_secret" };
        return Err(Error::new("keys", FailureCause::Settings, format!("half set: {missing} is empty")));
    }
    let credentials = Credentials::new("keys", (id, secret.expose(), token.map(Secret::expose)), None)?;
    Ok(Box::new(Fixed { name: "keys", credentials }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn chosen(source: Source, variables: &[(&str, &str)]) -> Result<&'static str, String> {
        let variables: Vec<(String, String)> =
            variables.iter().map(|(name, value)| (format!("ALIBABA_CLOUD_{name}"), value.to_string())).collect();
        let mut world = World::system();
        world.variable =
            Arc::new(move |name| variables.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone()));
        let settings = IdentitySettings { source, ..Default::default() };
        choose(&settings, &world).map(|source| source.name()).map_err(|error| error.to_string())
    }

    const KEYS: [(&str, &str); 2] = [("ACCESS_KEY_ID", "i"), ("ACCESS_KEY_SECRET", "s")];
    const TRIO: [(&str, &str); 3] = [("ROLE_ARN", "r"), ("OIDC_PROVIDER_ARN", "p"), ("OIDC_TOKEN_FILE", "/t")];

    #[test]
    fn auto_is_environment_then_rrsa_then_ecs_role() {
        let all = [&KEYS[..], &TRIO].concat();
        assert_eq!(chosen(Source::Auto, &all), Ok("environment"));
        assert_eq!(chosen(Source::Auto, &TRIO), Ok("RRSA"));
        assert_eq!(chosen(Source::Auto, &[]), Ok("ECS role"));
        assert_eq!(chosen(Source::Auto, &[("ACCESS_KEY_ID", ""), ("ROLE_ARN", "")]), Ok("ECS role"));
        let error = chosen(Source::Auto, &[("ECS_METADATA_DISABLED", "true")]).unwrap_err();
        assert!(error.contains("enable RRSA"), "{error}");
    }

    #[test]
    fn half_set_is_an_error_and_never_falls_through() {
        let error = chosen(Source::Auto, &KEYS[..1]).unwrap_err();
        assert!(error.contains("ALIBABA_CLOUD_ACCESS_KEY_SECRET is missing"), "{error}");
        assert!(chosen(Source::Auto, &KEYS[1..]).is_err());
        assert!(chosen(Source::Auto, &[("SECURITY_TOKEN", "t")]).is_err());
        for left_out in 0..3 {
            let mut two = TRIO.to_vec();
            let (name, _) = two.remove(left_out);
            let error = chosen(Source::Auto, &two).unwrap_err();
            assert!(error.contains(name), "{error}");
            assert!(chosen(Source::Rrsa(RrsaSettings::default()), &two).is_err());
        }
        let keys = Source::Keys { id: "i".into(), secret: Secret::default(), token: None };
        assert!(chosen(keys, &[]).unwrap_err().contains("access_key_secret is empty"));
    }

    #[test]
    fn what_is_asked_for_is_what_is_taken() {
        assert_eq!(chosen(Source::EcsRole(EcsRoleSettings::default()), &KEYS), Ok("ECS role"));
        assert_eq!(chosen(Source::Rrsa(RrsaSettings::default()), &[&KEYS[..], &TRIO].concat()), Ok("RRSA"));
        assert!(chosen(Source::Environment, &TRIO).is_err());
        assert!(chosen(Source::Rrsa(RrsaSettings::default()), &KEYS).is_err());
        let role = |base| {
            Source::AssumeRole(AssumeRoleSettings {
                role_arn: "acs:ram::1:role/r".into(),
                session_name: None,
                external_id: None,
                base: Box::new(base),
            })
        };
        assert_eq!(chosen(role(Source::Auto), &KEYS), Ok("AssumeRole"));
        assert!(chosen(role(role(Source::Auto)), &KEYS).is_err());
        assert!(chosen(role(Source::Auto), &KEYS[..1]).is_err());
    }

    #[test]
    fn the_sts_endpoint_follows_region_and_vpc() {
        let base = |variables: &'static [(&'static str, &'static str)]| {
            let mut world = World::system();
            world.variable =
                Arc::new(move |name| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| value.to_string()));
            Chooser { endpoints: &Endpoints::default(), world: &world }.sts("RRSA").unwrap().base
        };
        assert_eq!(base(&[]), "https://sts.aliyuncs.com");
        assert_eq!(base(&[(STS_REGION, "cn-beijing")]), "https://sts.cn-beijing.aliyuncs.com");
        let vpc = base(&[(STS_REGION, "cn-beijing"), (VPC_ENDPOINT, "true")]);
        assert_eq!(vpc, "https://sts-vpc.cn-beijing.aliyuncs.com");
        let mut world = World::system();
        world.variable = Arc::new(|name| (name == VPC_ENDPOINT).then(|| "true".to_owned()));
        let half_set = Chooser { endpoints: &Endpoints::default(), world: &world }.sts("RRSA").err().unwrap();
        assert!(half_set.to_string().contains("ALIBABA_CLOUD_STS_REGION is missing"), "{half_set}");
    }
}
