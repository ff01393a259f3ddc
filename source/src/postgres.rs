//! PostgreSQL as a source. (Bodies follow.)

use std::path::PathBuf;
use std::time::Duration;

/// Databases of a PostgreSQL server as a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresSpec {
    /// Where the server is, and the database to begin with: a connection string as `libpq` takes it.
    pub dsn: String,
    /// Databases to take; none: the one that `dsn` names.
    pub databases: Vec<String>,
    /// Whether a deploy makes roles that are not there.
    pub globals: bool,
    /// A query whose first value is the schema's version.
    pub version_query: Option<String>,
    /// The newest schema that the application here understands.
    pub schema_version: Option<String>,
    /// Folder of `psql`, `pg_dump` and the others; none: as the system finds them.
    pub bin: Option<PathBuf>,
    /// How long a dump or a load of one database may take.
    pub timeout: Duration,
}
