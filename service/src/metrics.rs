//! Figures for Prometheus. Names are an interface: the dashboard of `docs/grafana.json` and people's alerts
//! are built on them.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::operation::{Operation, State};
use crate::platform::Shelf;

/// Labels of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: String,
    /// The route with its placeholders, never a name out of a request.
    route: String,
    status: u16,
}

/// Labels of an operation that ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabels {
    verb: String,
    app: String,
    state: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerbLabels {
    verb: String,
    state: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AppLabels {
    app: String,
}

type Seconds = Gauge<f64, AtomicU64>;

/// All figures of the daemon.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    request_seconds: Histogram,
    operations: Family<OperationLabels, Counter>,
    operation_seconds: Family<VerbLabels, Histogram>,
    active: Family<VerbLabels, Gauge>,
    snapshots: Family<AppLabels, Gauge>,
    newest: Family<AppLabels, Seconds>,
    logical: Family<AppLabels, Gauge>,
    unreadable: Gauge,
    stored: Gauge,
    saved_by_deduplication: Gauge,
    saved_by_deltas: Gauge,
    saved_by_compression: Gauge,
    verified: Seconds,
    damaged: Gauge,
    refused: Family<RefusedLabels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusedLabels {
    reason: &'static str,
}

/// What the repository costs, as far as it is known.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Costs {
    pub(crate) stored: u64,
    pub(crate) saved_by_deduplication: u64,
    pub(crate) saved_by_deltas: u64,
    pub(crate) saved_by_compression: u64,
}

impl Default for Metrics {
    fn default() -> Self {
        let operation_histogram: fn() -> Histogram = || Histogram::new(exponential_buckets(0.01, 4.0, 10));
        let mut metrics = Self {
            registry: Registry::with_prefix("copal"),
            requests: Family::default(),
            request_seconds: Histogram::new(exponential_buckets(0.0005, 4.0, 9)),
            operations: Family::default(),
            operation_seconds: Family::new_with_constructor(operation_histogram),
            active: Family::default(),
            snapshots: Family::default(),
            newest: Family::default(),
            logical: Family::default(),
            unreadable: Gauge::default(),
            stored: Gauge::default(),
            saved_by_deduplication: Gauge::default(),
            saved_by_deltas: Gauge::default(),
            saved_by_compression: Gauge::default(),
            verified: Gauge::default(),
            damaged: Gauge::default(),
            refused: Family::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("http_requests", "Requests answered", self.requests.clone());
        registry.register_with_unit(
            "http_request_duration",
            "Time to the head of the answer",
            Unit::Seconds,
            self.request_seconds.clone(),
        );
        registry.register("http_refused", "Requests refused by access rules or limits", self.refused.clone());
        registry.register("operations", "Operations that ended", self.operations.clone());
        registry.register_with_unit(
            "operation_duration",
            "Time from begin to end of an operation",
            Unit::Seconds,
            self.operation_seconds.clone(),
        );
        registry.register("operations_active", "Operations that wait or run", self.active.clone());
        registry.register("snapshots", "Snapshots of each application", self.snapshots.clone());
        registry.register(
            "newest_snapshot_timestamp_seconds",
            "When the newest snapshot was taken",
            self.newest.clone(),
        );
        registry.register_with_unit("logical", "Logical size of all snapshots", Unit::Bytes, self.logical.clone());
        registry.register("snapshots_unreadable", "Snapshots that cannot be opened", self.unreadable.clone());
        registry.register_with_unit("stored", "Size of the repository", Unit::Bytes, self.stored.clone());
        registry.register_with_unit(
            "saved_by_deduplication",
            "What deduplication saves",
            Unit::Bytes,
            self.saved_by_deduplication.clone(),
        );
        registry.register_with_unit("saved_by_deltas", "What deltas save", Unit::Bytes, self.saved_by_deltas.clone());
        registry.register_with_unit(
            "saved_by_compression",
            "What compression saves",
            Unit::Bytes,
            self.saved_by_compression.clone(),
        );
        registry.register(
            "verified_timestamp_seconds",
            "When the whole repository was verified last",
            self.verified.clone(),
        );
        registry.register("damaged", "What the last verification found damaged", self.damaged.clone());
    }

    pub(crate) fn request(&self, method: &str, route: &str, status: u16, took: Duration) {
        let labels = RequestLabels { method: method.into(), route: route.into(), status };
        self.requests.get_or_create(&labels).inc();
        self.request_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&RefusedLabels { reason }).inc();
    }

    pub(crate) fn operation_ended(&self, operation: &Operation) {
        let Operation { verb, app, state, .. } = operation;
        let state = state.name().to_owned();
        self.operations
            .get_or_create(&OperationLabels { verb: verb.clone(), app: app.clone(), state: state.clone() })
            .inc();
        let moment = |text: &Option<String>| text.as_ref().and_then(|text| text.parse::<jiff::Timestamp>().ok());
        if let (Some(started), Some(ended)) = (moment(&operation.started), moment(&operation.ended)) {
            let seconds = ended.duration_since(started).as_secs_f64();
            self.operation_seconds.get_or_create(&VerbLabels { verb: verb.clone(), state }).observe(seconds);
        }
    }

    pub(crate) fn verified(&self, damaged: u64) {
        let now = jiff::Timestamp::now().as_second();
        self.verified.set(now as f64);
        self.damaged.set(i64::try_from(damaged).unwrap_or(i64::MAX));
    }

    /// Everything as text in the OpenMetrics format.
    pub(crate) fn render(&self, shelf: Option<&Shelf>, active: &[Operation], costs: Option<Costs>) -> String {
        let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.active.clear();
        for operation in active.iter().filter(|operation| matches!(operation.state, State::Queued | State::Running)) {
            let labels = VerbLabels { verb: operation.verb.clone(), state: operation.state.name().into() };
            self.active.get_or_create(&labels).inc();
        }
        if let Some(shelf) = shelf {
            self.snapshots.clear();
            self.newest.clear();
            self.logical.clear();
            for listed in &shelf.catalogue.snapshots {
                let labels = AppLabels { app: listed.snapshot.app.clone() };
                self.snapshots.get_or_create(&labels).inc();
                // Oldest first: the last one stays.
                self.newest.get_or_create(&labels).set(listed.snapshot.created.seconds as f64);
                let logical = self.logical.get_or_create(&labels);
                logical.set(logical.get().saturating_add(signed(listed.snapshot.bytes())));
            }
            self.unreadable.set(signed(shelf.unreadable.len() as u64));
        }
        if let Some(costs) = costs {
            self.stored.set(signed(costs.stored));
            self.saved_by_deduplication.set(signed(costs.saved_by_deduplication));
            self.saved_by_deltas.set(signed(costs.saved_by_deltas));
            self.saved_by_compression.set(signed(costs.saved_by_compression));
        }
        let mut text = String::new();
        if let Err(error) = encode(&mut text, &self.registry) {
            tracing::error!(%error, "the metrics could not be written");
        }
        text
    }
}
