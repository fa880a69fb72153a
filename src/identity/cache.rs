//! Holds the current keys and renews them in time: early, in the background, one call at a time.

use super::{Credentials, Error, IdentitySettings, Obtain, Obtained, source};
use arc_swap::ArcSwapOption;
use std::{
    fmt,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::sync::{Mutex, MutexGuard};

/// Renewal starts this long before expiry, or at a quarter of the life if that is shorter.
const EARLY_MILLIS: u64 = 15 * 60 * 1000;
/// Keys that are younger are not renewed because a service refuses them: others would be refused too.
const YOUNG_MILLIS: u64 = 15_000;
/// The source is left alone after a failure for this long, twice as long after the next, and so on, so
/// that a role without permissions does not turn every retry into a call of STS.
const PAUSE_MILLIS: u64 = 1000;
const LONGEST_PAUSE_MILLIS: u64 = 60_000;

/// What identity takes from the outside; tests bring their own.
#[derive(Clone)]
pub struct World {
    pub unix_millis: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Uniform bits.
    pub random: Arc<dyn Fn() -> u64 + Send + Sync>,
    pub variable: Arc<EnvironmentLookup>,
}

/// Environment variables by name.
pub type EnvironmentLookup = dyn Fn(&str) -> Option<String> + Send + Sync;

impl World {
    /// The real one.
    pub fn system() -> World {
        World {
            unix_millis: Arc::new(|| {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
                since.as_millis() as u64
            }),
            random: Arc::new(|| getrandom::u64().expect("the system gives random bits")),
            variable: Arc::new(|name| std::env::var(name).ok()),
        }
    }
}

/// Keys for one sink. Shared by all that sign with them.
pub struct Identity {
    source: Box<dyn Obtain>,
    world: World,
    held: ArcSwapOption<CachedCredentials>,
    /// Whoever holds it is the one that asks the source.
    flight: Mutex<()>,
    /// The last failure of the source; none after a success.
    failed: ArcSwapOption<Failed>,
}

struct Failed {
    error: Error,
    /// Unix milliseconds.
    until: u64,
    pause: u64,
}

struct CachedCredentials {
    credentials: Arc<Credentials>,
    request_id: Option<String>,
    /// Unix milliseconds.
    obtained: u64,
    renew_at: u64,
    expires: u64,
}

impl CachedCredentials {
    /// No longer so where the clock is set back.
    fn is_young(&self, now: u64) -> bool {
        (self.obtained..self.obtained + YOUNG_MILLIS).contains(&now)
    }
}

impl Identity {
    /// Checks settings and environment; asks nothing over the network.
    pub fn new(settings: &IdentitySettings, world: World) -> Result<Arc<Identity>, Error> {
        let source = source::choose(settings, &world)?;
        tracing::info!(source = source.name(), "keys come from");
        Ok(Identity::keep(source, world))
    }

    /// Keeps the keys that `source` gives.
    pub fn keep(source: Box<dyn Obtain>, world: World) -> Arc<Identity> {
        Arc::new(Identity {
            source,
            world,
            held: ArcSwapOption::empty(),
            flight: Mutex::new(()),
            failed: ArcSwapOption::empty(),
        })
    }

    /// `RRSA`, `ECS role`, …
    pub fn source(&self) -> &'static str {
        self.source.name()
    }

    /// Valid keys. It waits for the source only when there are none; when the keys come of age a
    /// renewal starts in the background and the old ones serve until they expire. While the source
    /// is left alone after a failure, that failure is the answer.
    pub async fn current(self: &Arc<Self>) -> Result<Arc<Credentials>, Error> {
        let now = self.now();
        match self.held.load_full() {
            Some(held) if now < held.renew_at => Ok(held.credentials.clone()),
            Some(held) if now < held.expires => {
                self.renew_in_background();
                Ok(held.credentials.clone())
            }
            _ => {
                let flight = self.flight.lock().await;
                match self.held.load_full() {
                    // Another caller has just renewed them.
                    Some(held) if self.now() < held.expires => Ok(held.credentials.clone()),
                    _ => match self.rests() {
                        Some(failed) => Err(failed.error.clone()),
                        None => Ok(self.renew(&flight).await?.credentials.clone()),
                    },
                }
            }
        }
    }

    /// Takes note that the service refused `refused` and gives the keys to try next: new ones, or the
    /// same if they are new themselves or cannot be renewed.
    pub async fn replace(self: &Arc<Self>, refused: &Arc<Credentials>) -> Result<Arc<Credentials>, Error> {
        let flight = self.flight.lock().await;
        let now = self.now();
        match self.held.load_full() {
            Some(held) if !Arc::ptr_eq(&held.credentials, refused) && now < held.expires => {
                Ok(held.credentials.clone())
            }
            Some(held) if held.is_young(now) || self.rests().is_some() => Ok(held.credentials.clone()),
            _ => Ok(self.renew(&flight).await?.credentials.clone()),
        }
    }

    /// Asks the source now, whatever is held; gives the access key id and the id of the call.
    pub async fn probe(self: &Arc<Self>) -> Result<(Arc<Credentials>, Option<String>), Error> {
        let flight = self.flight.lock().await;
        let held = self.renew(&flight).await?;
        Ok((held.credentials.clone(), held.request_id.clone()))
    }

    fn renew_in_background(self: &Arc<Self>) {
        // A lock that is taken means that a renewal is on its way.
        if self.rests().is_some() || self.flight.try_lock().is_err() {
            return;
        }
        let identity = Arc::clone(self);
        tokio::spawn(async move {
            let flight = identity.flight.lock().await;
            let now = identity.now();
            let is_due = identity.held.load().as_ref().is_none_or(|held| now >= held.renew_at);
            if is_due
                && identity.rests().is_none()
                && let Err(error) = identity.renew(&flight).await
            {
                tracing::warn!(%error, "cannot renew keys, the old ones serve until they expire");
            }
        });
    }

    async fn renew(&self, _flight: &MutexGuard<'_, ()>) -> Result<Arc<CachedCredentials>, Error> {
        let outcome = self.source.obtain().await;
        let now = self.now();
        let Obtained { credentials, request_id } = outcome.inspect_err(|error| self.note_failure(error, now))?;
        self.failed.store(None);
        let expires = credentials.expires.map_or(u64::MAX, |seconds| seconds.saturating_mul(1000));
        // By a clock that is ahead, new keys are old ones. Whoever takes them knows better.
        let expires = if expires <= now { now + YOUNG_MILLIS } else { expires };
        let renew_at = renewal(now, expires, (self.world.random)());
        tracing::debug!(source = self.source(), access_key_id = credentials.id, "obtained keys");
        let held =
            CachedCredentials { credentials: Arc::new(credentials), request_id, obtained: now, renew_at, expires };
        let held = Arc::new(held);
        self.held.store(Some(Arc::clone(&held)));
        Ok(held)
    }

    fn note_failure(&self, error: &Error, now: u64) {
        let pause =
            self.failed.load().as_ref().map_or(PAUSE_MILLIS, |failed| failed.pause * 2).min(LONGEST_PAUSE_MILLIS);
        self.failed.store(Some(Arc::new(Failed { error: error.clone(), until: now + pause, pause })));
    }

    /// The failure after which the source is still left alone.
    fn rests(&self) -> Option<Arc<Failed>> {
        // Not for longer where the clock is set back.
        self.failed.load_full().filter(|failed| (failed.until - failed.pause..failed.until).contains(&self.now()))
    }

    fn now(&self) -> u64 {
        (self.world.unix_millis)()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("source", &self.source()).finish_non_exhaustive()
    }
}

/// When to renew keys that were obtained at `now`: a lead of 15 minutes or a quarter of their life
/// before they expire, and up to half of the lead earlier, so that a fleet does not ask in one second.
fn renewal(now: u64, expires: u64, random: u64) -> u64 {
    if expires == u64::MAX {
        return u64::MAX;
    }
    let lead = EARLY_MILLIS.min(expires.saturating_sub(now) / 4);
    let jitter = ((u128::from(random) * u128::from(lead / 2)) >> 64) as u64;
    expires - lead - jitter
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{FailureCause, Secret};
    use std::{
        collections::VecDeque,
        future::Future,
        pin::Pin,
        sync::{
            Mutex as StdMutex,
            atomic::{AtomicU64, Ordering::Relaxed},
        },
    };
    use tokio::sync::Notify;

    /// Gives keys with the next lifetime in seconds, or an error; waits for `gate` if there is one.
    struct Script {
        clock: Arc<AtomicU64>,
        lives: StdMutex<VecDeque<Option<u64>>>,
        calls: Arc<AtomicU64>,
        gate: Option<Arc<Notify>>,
    }

    impl Obtain for Script {
        fn obtain(&self) -> Pin<Box<dyn Future<Output = Result<Obtained, Error>> + Send + '_>> {
            Box::pin(async {
                let call = self.calls.fetch_add(1, Relaxed) + 1;
                if let Some(gate) = &self.gate {
                    gate.notified().await;
                }
                let life = self.lives.lock().unwrap().pop_front().expect("a call that the script has");
                let life = life.ok_or_else(|| Error::new("script", FailureCause::Refused, "no keys today"))?;
                let expires = Some(self.clock.load(Relaxed) / 1000 + life);
                let secret = Secret::new("s");
                let credentials = Credentials { id: format!("key{call}"), secret, token: None, expires };
                Ok(Obtained { credentials, request_id: None })
            })
        }

        fn name(&self) -> &'static str {
            "script"
        }
    }

    struct Stage {
        identity: Arc<Identity>,
        clock: Arc<AtomicU64>,
        calls: Arc<AtomicU64>,
    }

    impl Stage {
        fn new(lives: &[Option<u64>], gate: Option<Arc<Notify>>) -> Stage {
            let clock = Arc::new(AtomicU64::new(1_795_428_000_000));
            let calls = Arc::new(AtomicU64::new(0));
            let lives = StdMutex::new(lives.iter().copied().collect());
            let script = Script { clock: clock.clone(), lives, calls: calls.clone(), gate };
            let ticking = clock.clone();
            let world = World {
                unix_millis: Arc::new(move || ticking.load(Relaxed)),
                random: Arc::new(|| 0),
                variable: Arc::new(|_| None),
            };
            Stage { identity: Identity::keep(Box::new(script), world), clock, calls }
        }

        fn pass(&self, seconds: u64) {
            self.clock.fetch_add(seconds * 1000, Relaxed);
        }

        async fn id(&self) -> String {
            self.identity.current().await.unwrap().id.clone()
        }

        /// Lets the background task run to its end: it holds the lock until then.
        async fn settle(&self) {
            tokio::task::yield_now().await;
            drop(self.identity.flight.lock().await);
        }
    }

    #[test]
    fn renewal_is_early_by_a_quarter_or_fifteen_minutes_with_jitter() {
        let hour = 3_600_000;
        assert_eq!(renewal(0, hour, 0), hour - EARLY_MILLIS);
        assert_eq!(renewal(0, hour / 4, 0), hour / 4 - hour / 16);
        assert_eq!(renewal(0, 6 * hour, 0), 6 * hour - EARLY_MILLIS);
        assert_eq!(renewal(0, hour, u64::MAX), hour - EARLY_MILLIS - EARLY_MILLIS / 2 + 1);
        assert_eq!(renewal(hour, hour, 1), hour);
        assert_eq!(renewal(0, u64::MAX, 5), u64::MAX);
    }

    #[tokio::test]
    async fn keys_are_renewed_in_the_background_and_the_old_ones_serve_meanwhile() {
        let stage = Stage::new(&[Some(3600), Some(3600)], None);
        assert_eq!(stage.id().await, "key1");
        stage.pass(3600 - 15 * 60 - 1);
        assert_eq!(stage.id().await, "key1");
        assert_eq!(stage.calls.load(Relaxed), 1);
        stage.pass(1);
        assert_eq!(stage.id().await, "key1");
        stage.settle().await;
        assert_eq!(stage.id().await, "key2");
        assert_eq!(stage.calls.load(Relaxed), 2);
    }

    #[tokio::test]
    async fn a_failed_renewal_keeps_the_old_keys_until_they_expire_and_pauses() {
        let stage = Stage::new(&[Some(3600), None, None, Some(3600)], None);
        assert_eq!(stage.id().await, "key1");
        stage.pass(3000);
        for _ in 0..5 {
            assert_eq!(stage.id().await, "key1");
            stage.settle().await;
        }
        assert_eq!(stage.calls.load(Relaxed), 2, "one attempt, then a pause");
        stage.pass(600);
        assert_eq!(stage.identity.current().await.unwrap_err().to_string(), "script: no keys today");
        stage.pass(2);
        assert_eq!(stage.id().await, "key4");
    }

    #[tokio::test]
    async fn a_source_that_gives_nothing_is_asked_ever_more_seldom() {
        let stage = Stage::new(&[None; 12], None);
        for second in 0..300 {
            let error = stage.identity.current().await.unwrap_err();
            assert_eq!(error.to_string(), "script: no keys today", "also after {second} s");
            stage.pass(1);
        }
        assert_eq!(stage.calls.load(Relaxed), 7 + 3, "after 1, 2, 4, 8, 16, 32 and every 60 s");
    }

    #[tokio::test]
    async fn a_clock_that_is_set_back_makes_no_pause_longer() {
        let stage = Stage::new(&[Some(3600), None, Some(3600)], None);
        let first = stage.identity.current().await.unwrap();
        stage.clock.fetch_sub(7_200_000, Relaxed);
        assert!(stage.identity.replace(&first).await.is_err(), "they are not young any more");
        stage.clock.fetch_sub(7_200_000, Relaxed);
        assert_eq!(stage.identity.replace(&first).await.unwrap().id, "key3");
    }

    /// So does everybody whose own clock is ahead by more than the keys live.
    #[tokio::test]
    async fn keys_that_are_old_when_they_come_are_not_asked_for_with_every_request() {
        let stage = Stage::new(&[Some(0), Some(0)], None);
        for _ in 0..5 {
            assert_eq!(stage.id().await, "key1");
        }
        stage.pass(15);
        assert_eq!(stage.id().await, "key2");
    }

    #[tokio::test]
    async fn keys_of_a_few_seconds_are_not_used_for_longer() {
        let stage = Stage::new(&[Some(5), Some(5), Some(5)], None);
        assert_eq!(stage.id().await, "key1");
        stage.pass(4);
        assert_eq!(stage.id().await, "key1");
        stage.settle().await;
        assert_eq!(stage.id().await, "key2", "renewed ahead of it");
        stage.pass(5);
        assert_eq!(stage.id().await, "key3");
    }

    #[tokio::test]
    async fn many_callers_make_one_call() {
        let gate = Arc::new(Notify::new());
        let stage = Stage::new(&[Some(3600)], Some(gate.clone()));
        let callers: Vec<_> = (0..50)
            .map(|_| {
                let identity = stage.identity.clone();
                tokio::spawn(async move { identity.current().await.unwrap().id.clone() })
            })
            .collect();
        tokio::task::yield_now().await;
        gate.notify_one();
        for caller in callers {
            assert_eq!(caller.await.unwrap(), "key1");
        }
        assert_eq!(stage.calls.load(Relaxed), 1);
    }

    #[tokio::test]
    async fn refused_keys_are_replaced_at_once_and_once() {
        let stage = Stage::new(&[Some(3600), Some(3600)], None);
        let first = stage.identity.current().await.unwrap();
        stage.pass(60);
        let second = stage.identity.replace(&first).await.unwrap();
        assert_eq!(second.id, "key2");
        assert_eq!(stage.identity.replace(&first).await.unwrap().id, "key2", "another sink saw the same refusal");
        assert_eq!(stage.identity.replace(&second).await.unwrap().id, "key2", "new keys are not renewed again");
        assert_eq!(stage.calls.load(Relaxed), 2);
    }
}
