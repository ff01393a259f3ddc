//! What belongs to a database as a whole and is in no dump of it: what it is made with, and what is set,
//! granted and said about it.

use super::session::Session;
use crate::{Error, Result};

/// Stands for the database's name in statements: it gets one of its own while it is loaded.
pub(super) const NAME: &str = "\u{1e}";
/// Between statements.
pub(super) const NEXT: &str = "\u{1f}";

/// Owner, encoding, collation, character type, provider of the locale, its locale and rules, tablespace.
/// Columns that a version of the server has not are empty.
pub(super) const SETTINGS_QUERY: &str = "SELECT concat_ws(E'\\x1f', pg_catalog.pg_get_userbyid(d.datdba), \
    pg_catalog.pg_encoding_to_char(d.encoding), coalesce(d.datcollate, ''), coalesce(d.datctype, ''), \
    coalesce(to_jsonb(d)->>'datlocprovider', ''), \
    coalesce(to_jsonb(d)->>'datlocale', to_jsonb(d)->>'daticulocale', ''), \
    coalesce(to_jsonb(d)->>'daticurules', ''), coalesce(t.spcname, '')) \
    FROM pg_catalog.pg_database d LEFT JOIN pg_catalog.pg_tablespace t ON t.oid = d.dattablespace \
    WHERE d.datname = current_database()";

/// Statements, in hexadecimal because an answer is one line. Values of lists are kept as they are to be
/// written.
const PROPERTIES_QUERY: &str = "WITH d AS (SELECT * FROM pg_catalog.pg_database WHERE datname = current_database()), \
    said(n, o, s) AS (\
    SELECT 1, 0::bigint, format('ALTER DATABASE %s CONNECTION LIMIT %s', chr(30), datconnlimit) FROM d WHERE datconnlimit <> -1 \
    UNION ALL SELECT 2, o, CASE WHEN setrole = 0 THEN format('ALTER DATABASE %s SET ', chr(30)) \
        ELSE format('ALTER ROLE %I IN DATABASE %s SET ', pg_catalog.pg_get_userbyid(setrole), chr(30)) END \
        || quote_ident(split_part(c, '=', 1)) || ' TO ' \
        || CASE WHEN lower(split_part(c, '=', 1)) IN ('search_path', 'temp_tablespaces', 'session_preload_libraries', \
            'shared_preload_libraries', 'local_preload_libraries', 'unix_socket_directories') \
            THEN substr(c, position('=' in c) + 1) ELSE quote_literal(substr(c, position('=' in c) + 1)) END \
        FROM d JOIN pg_catalog.pg_db_role_setting r ON r.setdatabase = d.oid, unnest(r.setconfig) WITH ORDINALITY AS u(c, o) \
    UNION ALL SELECT 3, 0, format('REVOKE ALL ON DATABASE %s FROM PUBLIC, %I', chr(30), pg_catalog.pg_get_userbyid(datdba)) \
        FROM d WHERE datacl IS NOT NULL \
    UNION ALL SELECT 4, a.o, CASE WHEN a.grantor = d.datdba THEN '' \
            ELSE format('SET SESSION AUTHORIZATION %I; ', pg_catalog.pg_get_userbyid(a.grantor)) END \
        || format('GRANT %s ON DATABASE %s TO %s%s', a.privilege_type, chr(30), \
        CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END, \
        CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END) \
        || CASE WHEN a.grantor = d.datdba THEN '' ELSE '; RESET SESSION AUTHORIZATION' END FROM d, \
        aclexplode(d.datacl) WITH ORDINALITY AS a(grantor, grantee, privilege_type, is_grantable, o) \
    UNION ALL SELECT 5, 0, format('COMMENT ON DATABASE %s IS %L', chr(30), shobj_description(oid, 'pg_database')) \
        FROM d WHERE shobj_description(oid, 'pg_database') IS NOT NULL \
    UNION ALL SELECT 6, 0, format('ALTER DATABASE %s IS_TEMPLATE true', chr(30)) FROM d WHERE datistemplate) \
    SELECT encode(convert_to(coalesce(string_agg(s, chr(31) ORDER BY n, o, s), ''), 'UTF8'), 'hex') FROM said";

/// Statements that set all that again.
pub(super) fn ask(session: &mut Session) -> Result<String> {
    let answer = session.ask(PROPERTIES_QUERY)?;
    let bytes: Option<Vec<u8>> =
        (0..answer.len() / 2).map(|at| u8::from_str_radix(answer.get(2 * at..2 * at + 2)?, 16).ok()).collect();
    bytes.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(|| Error::Database {
        action: "asking",
        place: "a database for what is set for it".into(),
        detail: "its answer is not what was asked for".into(),
    })
}
