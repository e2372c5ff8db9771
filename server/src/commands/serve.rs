//! `orlop serve`: the server, from its settings to its exit code.
//!
//! The address answers before recovery is done, with `/livez` and what
//! `/readyz` has to say; the rest is 503 until then. A stop signal ends
//! accepting, lets requests under way finish, and closes the store.

use std::future::{pending, ready};
use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use orlop_disk::lock::Lock;
use orlop_disk::{Disk, select};
use orlop_engine::Progress;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::service;
use super::version::VERSION;
use crate::api::{Readiness, State};
use crate::control::{Control, Desk, Operator};
use crate::listen::{self, Layers, Phase, Tls};
use crate::logging;
use crate::ops::{Backend, Ops};
use crate::registry::{Maintenance, ReadOnly, Registry};
use crate::settings::{Loaded, ServeArgs, Settings};
use crate::storage::{self, StartError, Storage};
use crate::supervisor::Supervisor;

/// How long work of cut requests may take to end.
const SETTLE: Duration = Duration::from_secs(10);
/// How long an opening that was cancelled may take to end, at least.
const CANCEL_TIME: Duration = Duration::from_secs(10);
/// How long the end of the process waits for work that nobody waits for, such
/// as reading a certificate from a file system that does not answer.
const EXIT_TIME: Duration = Duration::from_secs(5);

/// Flags of `orlop serve`.
pub type Args = ServeArgs;

/// Serves until told to stop.
pub fn run(args: &Args) -> ExitCode {
    match start(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => super::fail(&error),
    }
}

type Error = Box<dyn std::error::Error + Send + Sync>;

fn start(args: &Args) -> Result<(), Error> {
    let loaded = Loaded::new(args);
    let settings = loaded.checked()?;
    logging::start(settings.log_format, &settings.log_level)
        .map_err(|error| format!("log.level {:?}: {error}", settings.log_level))?;
    if let Some(file) = loaded.file() {
        tracing::info!(file = %file.display(), "settings read");
    }
    for note in &loaded.notes {
        tracing::warn!("{note}");
    }
    match storage::own(&settings.data) {
        // Nobody has said that the service's store is to be served by this user.
        Err(error) if loaded.is_data_default() => return Err(error.into()),
        Err(error @ StartError::Foreign { .. }) => {
            tracing::warn!(%error, "the store of another user")
        }
        _ => {}
    }
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("http")
        .build()?;
    let outcome = runtime.block_on(serve(settings));
    runtime.shutdown_timeout(EXIT_TIME);
    outcome
}

/// What `/readyz` and the API ask.
#[derive(Default)]
struct Status {
    progress: Progress,
    maintenance: Maintenance,
    /// None while it is starting, and again when it has ended.
    registry: RwLock<Option<Registry>>,
    stopping: AtomicBool,
}

impl Status {
    /// Says that it is about to end.
    fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        service::stopping();
    }

    fn set_registry(&self, registry: Option<Registry>) -> Option<Registry> {
        let mut current = self
            .registry
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut current, registry)
    }
}

impl Readiness for Status {
    fn state(&self) -> State {
        let registry = self.registry.read().unwrap_or_else(PoisonError::into_inner);
        match registry.as_ref() {
            Some(registry) => State::Ready(registry.clone()),
            None => State::Starting(describe(self.progress.get())),
        }
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    fn read_only(&self) -> Option<Arc<ReadOnly>> {
        self.maintenance.read_only()
    }
}

fn describe((stage, done, total): (&'static str, u64, u64)) -> String {
    match total {
        0 => stage.to_owned(),
        _ => format!("{stage}: {done} of {total} bytes"),
    }
}

async fn serve(settings: Settings) -> Result<(), Error> {
    let mut stop = StopSignal::new()?;
    // From here on it no longer ends the process.
    let hang_up = signal(SignalKind::hangup())?;
    let tls = settings.tls.as_ref().map(Tls::load).transpose()?;
    let tls = tls.map(Arc::new);
    storage::prepare(&settings.data)?;
    let lock = storage::lock(&settings.data)?;
    let (disk, why) = select(settings.disk_backend).map_err(StartError::Disk)?;
    let listener = listen::bind(settings.listen).map_err(|error| {
        let advice = bind_advice(error.kind());
        format!("cannot listen on {}: {error}; {advice}", settings.listen)
    })?;
    let address = listener.local_addr()?;
    let ops_listener = settings.ops_listen.map(OpsPort::bind).transpose()?;
    greet(&settings, disk.as_ref(), &why, address);

    let operator = Operator::new(&settings.data);
    let status = Arc::new(Status {
        maintenance: operator.maintenance(),
        ..Status::default()
    });
    let ops = Ops::new(Backend {
        name: disk.backend().to_string(),
        why,
    });
    let ops_port = ops_listener.map(|listener| OpsPort::start(listener, &status, &ops));
    let control = Control::offer(&settings.data, operator.clone())?;
    let (phase, phases) = watch::channel(Phase::Serving);
    let layers = Layers::new(Arc::clone(&status) as Arc<dyn Readiness>)
        .counting(ops.http())
        .with_public_url(settings.public_url.clone())
        .with_trusted_proxies(settings.trusted_proxies.clone());
    let serving = listen::serve(listener, tls.clone(), Arc::new(layers), phases);
    let mut server = tokio::spawn(serving);
    let watchdog = tokio::spawn(service::watchdog());
    let reloads = tokio::spawn(reload(hang_up, tls, Arc::clone(&status), ops.supervisor()));

    let opened = open(&settings, lock, disk, &status, &mut stop).await?;
    let outcome = match opened {
        Some(storage) => {
            let storage = Arc::new(storage);
            ops.watch(Some(Arc::clone(&storage)));
            operator.attach(storage.jobs().map(|jobs| {
                Desk {
                    jobs,
                    registry: storage
                        .registry()
                        .with_maintenance(status.maintenance.clone()),
                    gc: storage.gc(),
                }
            }));
            let registry = storage
                .registry()
                .with_maintenance(status.maintenance.clone())
                .counting(ops.verbs());
            status.set_registry(Some(registry));
            say(&format!("ready\n{}", next_commands(&settings, address)));
            service::ready();
            storage.gc().yield_to(ops.http().busy());
            let watched = Arc::clone(&storage);
            let maintenance = status.maintenance.clone();
            let supervisor = ops.supervisor();
            let watch = tokio::spawn(async move { watched.watch(&maintenance, &supervisor).await });
            let outcome = keep(&mut stop, &mut server).await;
            status.stop();
            reloads.abort();
            let limit = Instant::now() + settings.drain;
            let was_cut = drain(&phase, &mut server, &mut stop, limit).await;
            settle(&status).await;
            let give_up = async {
                if !was_cut {
                    patience(&mut stop, limit).await;
                }
            };
            // Before the folder's lock goes: the next server makes its own.
            drop(control);
            operator.attach(None);
            let closed = storage.close(give_up).await;
            ops.watch(None);
            // The storage has waited for its end, as long as it does.
            watch.abort();
            if let Err(error) = watch.await
                && !error.is_cancelled()
            {
                tracing::error!(%error, "the upkeep of the storage failed");
            }
            outcome.and(closed.map_err(Error::from))
        }
        None => Ok(()),
    };
    watchdog.abort();
    if let Some(port) = ops_port {
        port.end().await;
    }
    tracing::info!("stopped");
    outcome
}

/// Opens the storage; none if it was told to stop meanwhile. Opening is
/// cancelled then, and its end waited for: threads that work on the index while
/// the process exits would make it abort.
async fn open(
    settings: &Settings,
    lock: Lock,
    disk: Arc<dyn Disk>,
    status: &Arc<Status>,
    stop: &mut StopSignal,
) -> Result<Option<Storage>, Error> {
    let mut opening = {
        let (settings, status) = (settings.clone(), Arc::clone(status));
        tokio::spawn(async move { Storage::open(&settings, lock, disk, &status.progress).await })
    };
    tokio::select! {
        opened = &mut opening => return Ok(Some(opened??)),
        () = stop.received() => {}
    }
    status.stop();
    status.progress.cancel();
    tracing::info!("stopped while starting; the next start begins again");
    let limit = Instant::now() + settings.drain.max(CANCEL_TIME);
    let opened = tokio::select! {
        opened = opening => opened?,
        () = patience(stop, limit) => {
            return Err("the start did not end in time; the process ends without it, and nothing is lost by that".into());
        }
    };
    match opened {
        // Nothing was served: there is nothing to copy.
        Ok(storage) => storage.close(ready(())).await?,
        Err(StartError::Store(orlop_engine::Error::Cancelled)) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(None)
}

/// What to do about a port that cannot be had.
fn bind_advice(error: ErrorKind) -> &'static str {
    match error {
        ErrorKind::AddrInUse => "stop what listens there or pass another --listen",
        ErrorKind::PermissionDenied => {
            "a port below 1024 takes the capability CAP_NET_BIND_SERVICE; pass another --listen"
        }
        ErrorKind::AddrNotAvailable => {
            "no interface of this machine has that address; pass another --listen"
        }
        _ => "pass another --listen",
    }
}

/// Takes new certificates, as they appear and when SIGHUP asks for it.
async fn reload(
    hang_up: Signal,
    tls: Option<Arc<Tls>>,
    status: Arc<Status>,
    supervisor: Supervisor,
) {
    let watch = || async {
        if let Some(tls) = &tls {
            tls.watch().await;
        }
    };
    let hang_up = Mutex::new(hang_up);
    let asked = || async {
        while hang_up.lock().await.recv().await.is_some() {
            // While it starts, the manager waits for that and for nothing else.
            let is_ready = matches!(status.state(), State::Ready(_));
            let _reloading = is_ready.then(service::Reloading::begin);
            match &tls {
                Some(tls) => tls.reload().await,
                None => tracing::info!("SIGHUP: there is no certificate to read again"),
            }
        }
    };
    // Their task is aborted at a stop.
    tokio::join!(
        supervisor.keep("certificates", pending(), watch),
        supervisor.keep("reloads", pending(), asked)
    );
}

/// The ops port: served from before recovery to after the drain.
struct OpsPort {
    phase: watch::Sender<Phase>,
    server: JoinHandle<()>,
}

impl OpsPort {
    fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
        listen::bind(address).map_err(|error| {
            format!(
                "cannot listen on {address} for health and metrics: {error}; stop what listens there, pass another --ops-listen, or --ops-listen off"
            )
            .into()
        })
    }

    fn start(listener: TcpListener, status: &Arc<Status>, ops: &Ops) -> OpsPort {
        if let Ok(address) = listener.local_addr() {
            tracing::info!(%address, "health and metrics");
            say(&format!("  ops      http://{address}/metrics"));
        }
        let readiness = Arc::clone(status) as Arc<dyn Readiness>;
        let layers = Layers::new(readiness).with_ops(ops.clone());
        let (phase, phases) = watch::channel(Phase::Serving);
        let server = tokio::spawn(listen::serve(listener, None, Arc::new(layers), phases));
        OpsPort { phase, server }
    }

    async fn end(self) {
        self.phase.send_replace(Phase::Ended);
        if let Err(error) = self.server.await {
            tracing::error!(%error, "the listener of the ops port failed");
        }
    }
}

/// Waits until it is time to stop.
async fn keep(stop: &mut StopSignal, server: &mut JoinHandle<()>) -> Result<(), Error> {
    tokio::select! {
        () = stop.received() => Ok(()),
        _ = server => Err("the listener ended; the log says why".into()),
    }
}

/// How long a stop waits for what may be left out: up to its limit, or until
/// another signal.
async fn patience(stop: &mut StopSignal, limit: Instant) {
    tokio::select! {
        () = sleep_until(limit) => {}
        () = stop.received() => {}
    }
}

/// Stops accepting, waits for requests under way, and cuts what is left. A
/// second signal cuts at once. Says whether it came to that.
async fn drain(
    phase: &watch::Sender<Phase>,
    server: &mut JoinHandle<()>,
    stop: &mut StopSignal,
    limit: Instant,
) -> bool {
    if server.is_finished() {
        return false;
    }
    tracing::info!("stopping: finishing requests under way");
    phase.send_replace(Phase::Draining);
    tokio::select! {
        _ = &mut *server => return false,
        () = patience(stop, limit) => {}
    }
    tracing::warn!("cutting requests that have not finished");
    phase.send_replace(Phase::Ended);
    if let Err(error) = server.await {
        tracing::error!(%error, "the listener failed");
    }
    true
}

/// Waits for what requests began and must not leave half done, such as
/// keeping what came of a body that was cut.
async fn settle(status: &Status) {
    if let Some(registry) = status.set_registry(None)
        && timeout(SETTLE, registry.settle()).await.is_err()
    {
        tracing::warn!(
            "work of cut requests did not end in time; it falls back to its last durable state"
        );
    }
}

/// Both signals that ask a server to stop.
struct StopSignal {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignal {
    fn new() -> std::io::Result<StopSignal> {
        Ok(StopSignal {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn greet(settings: &Settings, disk: &dyn Disk, why: &str, address: SocketAddr) {
    let scheme = scheme(settings);
    tracing::info!(version = VERSION, scheme, %address, data = %settings.data.display(), backend = %disk.backend(), why, "starting");
    let public = settings
        .public_url
        .as_ref()
        .map_or_else(String::new, |url| format!("\n  public   {url}"));
    say(&format!(
        "orlop {VERSION}\n  data     {}\n  address  {scheme}://{address}{public}\n  disk     {} ({why})",
        settings.data.display(),
        disk.backend(),
    ));
    if !address.ip().is_loopback() {
        tracing::warn!(%address, "--insecure-anonymous: whoever reaches this address may do everything");
    }
}

/// What the address is spoken to in.
fn scheme(settings: &Settings) -> &'static str {
    match settings.tls {
        Some(_) => "https",
        None => "http",
    }
}

/// What to type next.
fn next_commands(settings: &Settings, address: SocketAddr) -> String {
    let reached = if address.ip().is_unspecified() {
        format!("127.0.0.1:{}", address.port())
    } else {
        address.to_string()
    };
    let public = settings.public_url.as_deref();
    let (scheme, host) = public
        .and_then(|url| url.split_once("://"))
        .unwrap_or((scheme(settings), &reached));
    let (plain, trust) = if scheme == "https" {
        let trust = format!(
            "\n  trust    a certificate of your own authority goes to /etc/docker/certs.d/{host}/ca.crt"
        );
        ("", trust)
    } else {
        ("--dest-tls-verify=false ", String::new())
    };
    format!(
        "  try      docker tag IMAGE {host}/IMAGE && docker push {host}/IMAGE\n  \
         or       skopeo copy {plain}docker-daemon:IMAGE docker://{host}/IMAGE{trust}"
    )
}

/// Speaks to whoever started the server. Nobody has to listen.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// As many descriptors as the system grants: connections and segments both
/// need them.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if setrlimit(Resource::Nofile, raised).is_err() {
        tracing::warn!("cannot raise the limit of open files");
    }
}
