"""Asks DuckDB, polars and pyarrow for what `schedtrace sql` says of traces: test-engines.py PROGRAM TRACE...

They read the Parquet files of the trace as they are, the tables of `schedtrace export --to parquet`, and what
`schedtrace sql --format parquet` writes. Answers must be equal to the last digit. What schedtrace makes of the events - slices,
wakeups, preemptions, served softirqs - DuckDB makes again of the raw tables. Ends with "N passed, N failed".
"""

import json
import math
import random
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import checks

#: So many rows are compared one by one; of larger tables only counts, sums and the like.
WHOLE = 200_000
#: So many conditions are tried on each table.
CONDITIONS = 30
#: The same type by its names in all engines. In a query numbers have a sign, so that they can be subtracted, and in the files of
#: a trace they have none.
TYPES = {
    "Boolean": [(pa.bool_(), pl.Boolean, "BOOLEAN")],
    "Int32": [
        (pa.int32(), pl.Int32, "INTEGER"),
        (pa.uint8(), pl.UInt8, "UTINYINT"),
        (pa.uint16(), pl.UInt16, "USMALLINT"),
    ],
    "Int64": [(pa.int64(), pl.Int64, "BIGINT"), (pa.uint32(), pl.UInt32, "UINTEGER")],
    "Float64": [(pa.float64(), pl.Float64, "DOUBLE")],
    "Utf8View": [(pa.string(), pl.String, "VARCHAR")],
}
#: What is no table of files.
VIEWS = {"sched", "thread", "process", "trace_bounds"}
SETTINGS = ("tasks", "cgroups", "loss", "states")

program, traces = sys.argv[1], sys.argv[2:]


def check(what, ours, theirs):
    checks.check(what, ours == theirs, lambda: first_difference(ours, theirs))


def first_difference(ours, theirs):
    if isinstance(ours, list) and isinstance(theirs, list):
        more, fewer = Counter(ours) - Counter(theirs), Counter(theirs) - Counter(ours)
        shown = [f"{side} {', '.join(map(str, list(rows)[:3]))}" for side, rows in (("only schedtrace:", more), ("only the other:", fewer)) if rows]
        return f"{len(ours)} and {len(theirs)} rows; {more.total()} and {fewer.total()} differ; {'; '.join(shown)}"
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return "; ".join(f"{key}: {ours.get(key)} and {theirs.get(key)}" for key in {**ours, **theirs} if ours.get(key) != theirs.get(key))
    return f"{str(ours)[:300]} and {str(theirs)[:300]}"


def ask(trace, *statements):
    """The answers of schedtrace, each a list of rows as tuples."""
    ran = subprocess.run([program, "sql", trace, "--format", "json"], input=";\n".join(statements), stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True, timeout=600)
    answers = [json.loads(line, parse_float=float) for line in ran.stdout.splitlines()]
    if ran.returncode != 0 or len(answers) != len(statements):
        check(f"schedtrace sql answers {statements[len(answers)] if len(answers) < len(statements) else ''}", ran.stderr, "")
        answers += [[]] * (len(statements) - len(answers))
    return [[tuple(row.values()) for row in rows] for rows in answers]


def quoted(name):
    return '"' + name.replace('"', '""') + '"'


def ordered(rows):
    return sorted(rows, key=lambda row: tuple((cell is None, cell) for cell in row))


class Table:
    """A table that every engine reads by itself."""

    def __init__(self, trace, name, files):
        self.trace, self.name, self.files = trace, name, [str(file) for file in files]
        self.sql = f"read_parquet({self.files})"

    def types(self):
        return {name: kind for name, kind, _ in ask(self.trace, f"describe {quoted(self.name)}")[0]}

    def facts(self, columns):
        """What is asked of each column, as a name of the fact, in the SQL of either engine."""
        facts = {"rows": "count(*)"}
        for column, kind in columns.items():
            c = quoted(column)
            facts[f"count({column})"] = f"count({c})"
            facts[f"distinct({column})"] = f"count(distinct {c})"
            if kind == "Utf8View":
                facts[f"letters({column})"] = f"cast(sum(cast(character_length({c}) as bigint)) as varchar)"
            elif kind == "Boolean":
                facts[f"sum({column})"] = f"cast(sum(cast({c} as bigint)) as varchar)"
            else:
                facts[f"sum({column})"] = f"cast(sum(cast({c} as decimal(38, 0))) as varchar)"
            if kind != "Boolean":
                facts[f"min({column})"], facts[f"max({column})"] = f"min({c})", f"max({c})"
        return facts

    def by_schedtrace(self, columns):
        facts = self.facts(columns)
        row, = ask(self.trace, f"select {', '.join(f'{sql} as f{at}' for at, sql in enumerate(facts.values()))} from {quoted(self.name)}")[0]
        return dict(zip(facts, row))

    def by_duckdb(self, columns):
        facts = {name: sql.replace("character_length", "length") for name, sql in self.facts(columns).items()}
        return dict(zip(facts, duckdb.sql(f"select {', '.join(facts.values())} from {self.sql}").fetchall()[0]))

    def by_polars(self, columns):
        frame, facts = pl.read_parquet(self.files), {}
        facts["rows"] = frame.height
        text = lambda value: None if value is None else str(value)
        for column, kind in columns.items():
            values = frame[column].drop_nulls()
            none = values.len() == 0
            facts[f"count({column})"] = values.len()
            facts[f"distinct({column})"] = values.n_unique()
            if kind == "Utf8View":
                facts[f"letters({column})"] = None if none else text(values.str.len_chars().cast(pl.Int64).sum())
            else:
                facts[f"sum({column})"] = None if none else text(values.cast(pl.Int128).sum())
            if kind != "Boolean":
                facts[f"min({column})"], facts[f"max({column})"] = values.min(), values.max()
        return facts

    def by_pyarrow(self, columns):
        table, facts = self.arrow(), {}
        facts["rows"] = table.num_rows
        for column, kind in columns.items():
            values = table[column].drop_null()
            none = len(values) == 0
            facts[f"count({column})"] = len(values)
            facts[f"distinct({column})"] = pc.count_distinct(values).as_py()
            if kind == "Utf8View":
                facts[f"letters({column})"] = None if none else str(pc.sum(pc.utf8_length(values)).as_py())
            else:
                # A sum of integers has 64 bits here, so of the bits above and below apart.
                number = pc.cast(values, pa.int64())
                high, low = pc.shift_right(number, 24), pc.bit_wise_and(number, (1 << 24) - 1)
                facts[f"sum({column})"] = None if none else str((pc.sum(high).as_py() << 24) + pc.sum(low).as_py())
            if kind != "Boolean":
                facts[f"min({column})"], facts[f"max({column})"] = pc.min_max(values).as_py().values() if not none else (None, None)
        return facts

    def arrow(self):
        # Each file by itself: what a path says is no column. Of the views of texts little can be asked here; types() tells of them.
        table = pa.concat_tables(self.arrow_as_it_is())
        fields = [field.with_type(pa.string()) if field.type == pa.string_view() else field for field in table.schema]
        return table.cast(pa.schema(fields))

    def arrow_as_it_is(self):
        return [pq.ParquetFile(file).read() for file in self.files]

    def compare(self):
        """Types, counts, sums, least and largest of all columns, and, of a table that is not large, every row."""
        what, types = f"{self.trace}: {self.name}", self.types()
        for place, kinds in (("pyarrow", {field.name: field.type for field in self.arrow_as_it_is()[0].schema}),
                             ("polars", dict(pl.read_parquet_schema(self.files[0]))),
                             ("DuckDB", {row[0]: row[1] for row in duckdb.sql(f"describe select * from {self.sql}").fetchall()})):
            at = ("pyarrow", "polars", "DuckDB").index(place)
            check(f"{what}: columns in {place}", list(types), list(kinds))
            for name, kind in types.items():
                check(f"{what}: type of {name} in {place}", kinds[name] in [known[at] for known in TYPES[kind]], True)
        ours = self.by_schedtrace(types)
        for place, theirs in (("DuckDB", self.by_duckdb(types)), ("polars", self.by_polars(types)), ("pyarrow", self.by_pyarrow(types))):
            check(f"{what}: columns in {place}", ours, theirs)
        if ours["rows"] > WHOLE:
            return
        rows = ordered(ask(self.trace, f"select * from {quoted(self.name)}")[0])
        check(f"{what}: rows in DuckDB", rows, ordered(duckdb.sql(f"select * from {self.sql}").fetchall()))
        check(f"{what}: rows in polars", rows, ordered(pl.read_parquet(self.files).rows()))
        check(f"{what}: rows in pyarrow", rows, ordered(zip(*self.arrow().to_pydict().values())))

    def conditions(self, seed):
        """Conditions of values that the table has and has not, alone and joined."""
        chance, table = random.Random(f"{self.name} {seed}"), self.arrow()
        if table.num_rows == 0:
            return ["true"]

        def literal(column, near=0):
            value = table[column][chance.randrange(table.num_rows)].as_py()
            if value is None:
                return "null" if chance.random() < 0.1 else literal_of(column)
            if isinstance(value, bool):
                return str(value).lower()
            if isinstance(value, int):
                return str(max(0, value + near))
            return "'" + value.replace("'", "''") + "'"

        def literal_of(column):
            return {pa.string(): "'S'", pa.bool_(): "true"}.get(table.schema.field(column).type, "7")

        # What can be told before anything is read comes more often.
        told = [name for name in table.column_names if name in ("ts", "ts_ns", "utid", "tid", "pid", "comm", "cpu", "task", "task_id", "next_task")]

        def one():
            column = chance.choice(told if told and chance.random() < 0.7 else table.column_names)
            kind, c = table.schema.field(column).type, quoted(column)
            number = pa.types.is_integer(kind)
            forms = [f"{c} = {literal(column)}", f"{c} <> {literal(column)}", f"{c} is null", f"{c} is not null",
                     f"{c} in ({', '.join(literal(column) for _ in range(chance.randint(1, 4)))})",
                     f"{c} not in ({', '.join(literal(column) for _ in range(chance.randint(1, 3)))})",
                     f"{c} is distinct from {literal(column)}", f"{literal(column)} = {c}"]
            if number:
                near = chance.choice((-1, 0, 1))
                forms += [f"{c} {op} {literal(column, near)}" for op in ("<", "<=", ">", ">=")]
                forms += [f"{literal(column, near)} {op} {c}" for op in ("<", "<=", ">", ">=")]
                forms += [f"{c} between {literal(column)} and {literal(column)}", f"{c} not between {literal(column)} and {literal(column)}",
                          f"{c} > {literal(column)}.5", f"{c} = {literal(column)}.0", f"{c} <= -1", f"{c} >= -1", f"cast({c} as bigint) + 1 > {literal(column)}",
                          f"cast({c} as double) = {literal(column)}", f"{c} < 99999999999999999999"]
            elif kind == pa.string():
                forms += [f"{c} like 'k%'", f"{c} >= {literal(column)}", f"upper({c}) = {literal(column)}", f"{c} = ''", f"{c} || 'x' = 'Sx'",
                          f"{c} between 'a' and {literal(column)}"]
            else:
                forms += [c, f"not {c}"]
            return chance.choice(forms)

        def some(depth):
            if depth == 0 or chance.random() < 0.3:
                return one()
            if chance.random() < 0.15:
                return f"not ({some(depth - 1)})"
            return f"({some(depth - 1)}) {chance.choice(('and', 'and', 'or'))} ({some(depth - 1)})"

        return [some(depth) for depth in (0, 1, 2) for _ in range(CONDITIONS // 3)]

    def narrow(self, seed):
        """Whatever is asked for, as many rows come as of the whole table fulfil it."""
        conditions = self.conditions(seed)
        numbers = [quoted(field.name) for field in self.arrow().schema if field.name in ("ts", "ts_ns", "dur", "seen_ns", "utid", "cpu")]
        facts = ", ".join(["count(*) as n", *(f"cast(sum(cast({c} as decimal(38, 0))) as varchar) as s{at}" for at, c in enumerate(numbers))])
        answers = ask(self.trace, *(f"select {facts} from {quoted(self.name)} where {condition}" for condition in conditions))
        for condition, ours in zip(conditions, answers):
            theirs = duckdb.sql(f"select {facts} from {self.sql} where {condition}").fetchall()
            check(f"{self.trace}: select {facts} from {self.name} where {condition}", ours, theirs)


#: Questions that both SQL dialects know, asked of the exported tables; percentiles are exact.
QUESTIONS = {
    "time by state": "select state, reason, count(*), cast(sum(dur) as bigint), count(dur) from thread_state group by state, reason",
    "time by task and state": """select comm, tid, coalesce(state, 'not seen') as s, cast(sum(dur) as bigint) as ns, max(dur) as longest
        from thread_state group by comm, tid, coalesce(state, 'not seen')""",
    "preemption pairs": """select comm, by_comm, count(*) as n, cast(sum(dur) as bigint) as ns from preemption where whole
        group by comm, by_comm order by n desc, ns desc, comm, by_comm limit 10""",
    "states with who it is": """select t.comm, t.kernel, s.state, count(*), cast(sum(s.dur) as bigint) as ns, min(s.ts) from thread_state s
        join task t on s.utid = t.utid and not t.is_idle group by t.comm, t.kernel, s.state""",
    "tasks that never ran": """select t.utid, t.tid from task t left join sched_slice s on s.utid = t.utid where s.utid is null""",
    "threads by process": """select p.comm, count(*), min(t.tid), max(t.tid) from task t join task p on t.upid = p.utid and not p.is_idle
        where not t.is_idle group by p.comm""",
    "sleeps that I/O ended": "select comm, io_wait, count(*), cast(sum(dur) as bigint) from thread_state where state in ('S', 'D', 'I') group by comm, io_wait",
    "who wakes whom": "select waker_comm, comm, waker_context, count(*), cast(sum(dur) as bigint), min(dur), max(dur) from wakeup group by 1, 2, 3",
    "wakeups on another CPU": """select cpu, prev_cpu, migrated, count(*) from wakeup where prev_cpu is distinct from cpu group by cpu, prev_cpu, migrated""",
    "percentiles of wakeup latency": """select comm, percentile_cont(0.5) within group (order by dur),
        percentile_cont(0.9) within group (order by dur), percentile_cont(0.99) within group (order by dur),
        percentile_cont(0.999) within group (order by dur), count(*), min(dur), max(dur) from wakeup where whole group by comm""",
    "CPU time by core": """select c.core, c.llc, c.node, cast(sum(s.dur) as bigint) from sched_slice s join cpu c on c.cpu = s.cpu
        where s.utid <> 0 group by c.core, c.llc, c.node""",
    "longest gap between slices": """select cpu, max(gap), count(*) from (select cpu, lead(ts) over (partition by cpu order by ts) - (ts + dur) as gap
        from sched_slice) g group by cpu""",
    "the three longest of each state": """select state, dur, ts, tid from (select *, row_number() over (partition by state order by dur desc, ts, tid) as r
        from thread_state where dur is not null) x where r <= 3""",
    "running together": """select a.comm as one, b.comm as other, count(*) from sched_slice a join sched_slice b on a.ts < b.ts + b.dur and b.ts < a.ts + a.dur and a.cpu < b.cpu
        where a.utid <> 0 and b.utid <> 0 group by a.comm, b.comm""",
    "ever and never": """select count(*) from wakeup w where exists (select 1 from preemption p where p.utid = w.utid and p.ts > w.ts)
        and w.utid not in (select by_utid from preemption)""",
    "threads": "select * from thread",
    "slices with their ends": "select ts, dur, ts_end, cpu, utid, end_state, priority from sched",
    "processes": "select upid, pid, name, start_ts, end_ts, parent_upid, cgroup from process",
}

#: The views, in DuckDB, by their descriptions.
VIEWS_AGAIN = """
create or replace temp view sched as select ts, dur, ts + dur as ts_end, cpu, utid, end_state, priority from sched_slice;
create or replace temp view thread as select utid, tid, comm as name, upid, start_ts, end_ts, is_main_thread, is_idle from task where not is_idle
    union all select distinct 0, 0, 'swapper', null::bigint, null::bigint, null::bigint, true, true from task where is_idle;
create or replace temp view process as
    select p.upid, p.pid, coalesce(l.comm, p.name) as name, coalesce(l.start_ts, p.start_ts) as start_ts, l.end_ts,
    (select max(x.upid) from task x where x.pid = p.ppid and not x.is_idle) as parent_upid, coalesce(l.cgroup, p.cgroup) as cgroup
    from (select upid, min(pid) as pid, min(comm) as name, min(start_ts) as start_ts, min(ppid) as ppid, min(cgroup) as cgroup
    from task where not is_idle group by upid) p left join task l on l.utid = p.upid and not l.is_idle;
"""


def questions(trace, tables):
    for table in tables:
        duckdb.sql(f"create or replace temp view {table.name} as select * from {table.sql}")
    duckdb.execute(VIEWS_AGAIN)
    here = {table.name for table in tables}
    ours = ask(trace, *QUESTIONS.values())
    step = longest(next(table for table in tables if table.name == "wakeup")) / 1e6
    for (what, sql), rows in zip(QUESTIONS.items(), ours):
        theirs = duckdb.sql(sql).fetchall()
        check(f"{trace}: {what}", *alike(ordered(rows), ordered(theirs), step))
    assert here >= {"sched_slice", "thread_state", "wakeup", "preemption", "task", "cpu"}
    percentiles(trace, next(table for table in tables if table.name == "wakeup"))


def longest(table):
    return pc.max(table.arrow()["dur"]).as_py() or 0


def alike(ours, theirs, step):
    """With their floats where ours are as good as the same. DataFusion goes from one sample to the next by millionths of the way,
    so a percentile is off by a millionth of what lies between two samples at most."""
    if len(ours) != len(theirs):
        return ours, theirs
    is_near = lambda a, b: math.isclose(a, b, rel_tol=1e-12, abs_tol=step)
    same = lambda a, b: b if isinstance(a, float) and isinstance(b, float) and is_near(a, b) else a
    return [tuple(map(same, our, their)) for our, their in zip(ours, theirs)], theirs


def percentiles(trace, wakeups):
    """The same of polars and pyarrow."""
    at, step = (0.5, 0.9, 0.99), longest(wakeups) / 1e6
    select = ", ".join(f"percentile_cont({p}) within group (order by dur) as p{nth}" for nth, p in enumerate(at))
    ours = ask(trace, f"select {select} from wakeup where whole")[0]
    durs = pl.read_parquet(wakeups.files).filter(pl.col("whole"))["dur"]
    check(f"{trace}: percentiles in polars", *alike(ours, [tuple(durs.quantile(p, "linear") for p in at)], step))
    arrow = wakeups.arrow()
    durs = arrow.filter(arrow["whole"])["dur"]
    check(f"{trace}: percentiles in pyarrow", *alike(ours, [tuple(pc.quantile(durs, list(at)).to_pylist())], step))


def switches_by_name(trace, switches, tasks):
    """Who came how often, by the name of that time: with no `asof join`, so by the times between which a name holds."""
    ours = ordered(ask(trace, """select t.comm, count(*) as n from sched_switch s join (select task_id, comm, since_ns,
        lead(since_ns) over (partition by task_id order by since_ns) as until_ns from (select distinct task_id, since_ns, comm from tasks) d) t
        on s.next_task = t.task_id and s.ts_ns >= t.since_ns and (t.until_ns is null or s.ts_ns < t.until_ns) group by t.comm""")[0])
    by_duckdb = f"""select t.comm, count(*) from {switches.sql} s asof join {tasks.sql} t
        on s.next_task = t.task_id and s.ts_ns >= t.since_ns group by t.comm"""
    check(f"{trace}: switches by name in DuckDB", ours, ordered(duckdb.sql(by_duckdb).fetchall()))
    joined = pl.read_parquet(switches.files).sort("ts_ns").join_asof(
        pl.read_parquet(tasks.files).sort("since_ns"), left_on="ts_ns", right_on="since_ns", by_left="next_task", by_right="task_id", check_sortedness=False)
    names = joined.drop_nulls("comm").group_by("comm").len().rows()
    check(f"{trace}: switches by name in polars", ours, ordered(names))
    left, right = switches.arrow().sort_by("ts_ns"), tasks.arrow().sort_by("since_ns").select(["task_id", "since_ns", "comm"])
    joined = left.join_asof(right, "ts_ns", "next_task", -2**62, right_on="since_ns", right_by="task_id")
    names = joined.filter(pc.is_valid(joined["comm"])).group_by("comm").aggregate([("comm", "count")])
    check(f"{trace}: switches by name in pyarrow", ours, ordered(zip(names["comm"].to_pylist(), names["comm_count"].to_pylist())))


#: The letter of a state in which a task left its CPU, as fs/proc/array.c has it.
LETTER = """case when prev_state & 1026 = 1026 then 'I' when prev_state & 1 <> 0 then 'S' when prev_state & 2 <> 0 then 'D'
    when prev_state & 4 <> 0 then 'T' when prev_state & 8 <> 0 then 't' when prev_state & 128 <> 0 then 'X'
    when prev_state & 32 <> 0 then 'Z' else 'P' end"""
#: Switches in their order, with what follows on their CPU. Without `preempted` only state 0 stays runnable; 16 is a quota used up.
SWITCHES = f"""
create or replace temp table switches as select ts_ns, cpu, prev_task, next_task, prev_prio, next_prio,
    lead(ts_ns) over cpus as until_ns, lead(prev_task) over cpus as then_task,
    preempted or prev_state & ~16 = 0 as runnable, prev_state & 16 <> 0 as throttled,
    case when preempted and prev_state & 16 = 0 then 'R+' when preempted or prev_state & ~16 = 0 then 'R' else {LETTER} end as letter
    from (select * from read_parquet(FILES, file_row_number = true, filename = true))
    window cpus as (partition by cpu order by ts_ns, filename, file_row_number)
"""
#: What happened to each task: it came, it left, it was woken; with what came before.
LIVES = """
create or replace temp table lives as select *, lag(what) over life as before, lag(what, 2) over life as before_that,
    lag(ts_ns) over life as since_ns from (
    select next_task as task, ts_ns, 3 as nth, 'came' as what, cpu, null as waker, null as context, null as on_cpu from switches where next_task < 2147483648
    union all select prev_task, ts_ns, 1, case when runnable then 'lost' when letter = 'X' then 'died' else 'slept' end, cpu, null, null, null
    from switches where prev_task < 2147483648
    union all select task, ts_ns, 2, 'woken', cpu, case when context <> 'task' then null
    when current_task >= 2147483648 then 0 else current_task end, context, on_cpu
    from read_parquet(WAKINGS)
    union all select task, ts_ns, 2, 'new', cpu, parent_task, null, null from read_parquet(NEW)) e
    window life as (partition by task order by ts_ns, nth)
"""


def again(trace, tables, losses):
    """Slices, wakeups, preemptions and served softirqs, made of the raw tables in the SQL of DuckDB."""
    files = {name: str(table.files) for name, table in tables.items()}
    if "sched_switch" not in files or "sched_waking" not in files or "sched_wakeup_new" not in files:
        print(f"{trace}: no switches and wakeups: nothing to make again")
        return
    duckdb.execute(SWITCHES.replace("FILES", files["sched_switch"]))
    duckdb.execute(LIVES.replace("WAKINGS", files["sched_waking"]).replace("NEW", files["sched_wakeup_new"]))
    # What is in doubt has no `dur`: then there must have been losses, and these rows are left out on both sides.
    doubts = "select (select count(*) from sched_slice where dur is null) as a, (select count(*) from wakeup where dur is null) as b"
    (doubt,) = ask(trace, doubts)[0]
    if losses == 0:
        check(f"{trace}: nothing is in doubt where nothing was lost", doubt, (0, 0))

    idle = "case when next_task >= 2147483648 then 0 else next_task end"
    ours, made = slices(trace, idle)
    check(f"{trace}: slices, of sched_switch", ours, made)
    wakeups(trace)
    ours = ask(trace, "select ts, dur, cpu, utid, priority, by_utid, by_priority, next_cpu from preemption where whole")[0]
    made = duckdb.sql("""select s.ts_ns, n.ts_ns - s.ts_ns, s.cpu, s.prev_task, s.prev_prio, s.next_task, s.next_prio, n.cpu from switches s
        join lives n on n.task = s.prev_task and n.what = 'came' and n.since_ns = s.ts_ns and n.before = 'lost'
        where s.runnable and not s.throttled and s.prev_task < 2147483648 and s.next_task < 2147483648""").fetchall()
    check(f"{trace}: preemptions, of sched_switch", ordered(ours), ordered(made))
    if "softirq_entry" in files and "softirq_exit" in files:
        served(trace, files)


def slices(trace, idle):
    # A slice that began with the recording has a switch-out only; one that has not ended, only its switch-in.
    ours = ask(trace, "select ts, dur, cpu, utid, end_state, priority from sched_slice where whole")[0]
    made = duckdb.sql(f"""select s.ts_ns, s.until_ns - s.ts_ns, s.cpu, {idle}, (select any_value(letter) from switches e where e.cpu = s.cpu
        and e.ts_ns = s.until_ns and e.prev_task = s.next_task), s.next_prio from switches s
        where s.until_ns is not null and s.then_task = s.next_task""").fetchall()
    return ordered(ours), ordered(made)


def wakeups(trace):
    """A waking of a sleeper, or of one who was never heard of before and is on no CPU, up to the switch to it. One that comes
    while the task has its CPU counts from the switch-out on, if it sleeps then and the next thing is that it comes again."""
    ours = ask(trace, "select ts, dur, cpu, utid, waker_utid, waker_context from wakeup where whole and not new")[0]
    simple = """select w.ts_ns, c.ts_ns - w.ts_ns, c.cpu, w.task, w.waker, nullif(w.context, 'task') from lives w
        join lives c on c.task = w.task and c.what = 'came' and c.ts_ns = (select min(x.ts_ns) from lives x
        where x.task = w.task and x.what = 'came' and (x.ts_ns, x.nth) > (w.ts_ns, w.nth))
        where w.what = 'woken' and (w.before = 'slept' or w.before is null and not w.on_cpu)"""
    held = """select s.ts_ns, c.ts_ns - s.ts_ns, c.cpu, s.task, w.waker, nullif(w.context, 'task') from lives s
        join lives w on w.task = s.task and w.what = 'woken' and w.ts_ns = s.since_ns and s.before = 'woken'
        join lives c on c.task = s.task and c.what = 'came' and c.since_ns = s.ts_ns and c.before = 'slept'
        where s.what = 'slept'"""
    made = duckdb.sql(f"{simple} union all {held}").fetchall()
    check(f"{trace}: wakeups, of sched_waking and sched_switch", ordered(ours), ordered(made))
    ours = ask(trace, "select ts, dur, cpu, utid, waker_utid from wakeup where whole and new")[0]
    made = duckdb.sql("""select w.ts_ns, c.ts_ns - w.ts_ns, c.cpu, w.task, w.waker from lives w join lives c
        on c.task = w.task and c.what = 'came' and c.before = 'new' and c.since_ns = w.ts_ns where w.what = 'new'""").fetchall()
    check(f"{trace}: first wakeups, of sched_wakeup_new and sched_switch", ordered(ours), ordered(made))


def served(trace, files):
    """Softirqs of one CPU follow one another: whatever begins ends before the next one begins."""
    vector = next(field[0] for field in duckdb.sql(f"describe select * from read_parquet({files['softirq_entry']})").fetchall()
                  if field[0] not in ("ts_ns", "cpu"))
    ours = ask(trace, "select ts, dur, cpu from irq_slice where kind = 'softirq'")[0]
    made = duckdb.sql(f"""select ts_ns, until_ns - ts_ns, cpu from (select *, lead(ts_ns) over cpus as until_ns, lead({vector}) over cpus as then_vector,
        lead(ended) over cpus as then_ended from (select ts_ns, cpu, {vector}, false as ended from read_parquet({files['softirq_entry']})
        union all select ts_ns, cpu, {vector}, true from read_parquet({files['softirq_exit']})) e
        window cpus as (partition by cpu order by ts_ns, ended)) x
        where not ended and then_ended and then_vector = {vector}""").fetchall()
    check(f"{trace}: softirqs, of softirq_entry and softirq_exit", ordered(ours), ordered(made))


def of_trace(trace, scratch):
    stored = {}
    for folder in sorted([*Path(trace, "events").iterdir(), *(Path(trace, name) for name in SETTINGS)]):
        files = sorted(folder.glob("*.parquet")) if folder.is_dir() else []
        assert not folder.is_dir() or not list(folder.glob("*.arrows")), f"{folder}: the trace is not at rest"
        if files:
            stored[folder.name] = Table(trace, folder.name, files)
    subprocess.run([program, "export", trace, "--to", "parquet", "-o", scratch], stderr=subprocess.DEVNULL, check=True)
    made = {file.stem: Table(trace, file.stem, [file]) for file in sorted(Path(scratch).glob("*.parquet"))}
    named = {row[0] for row in ask(trace, "select table_name from information_schema.tables where table_schema = 'public'")[0]}
    check(f"{trace}: tables", named - VIEWS, {*stored, *made})
    for table in [*stored.values(), *made.values()]:
        table.compare()
        table.narrow(1)
    questions(trace, list(made.values()))
    written(trace, Path(scratch))
    switches_by_name(trace, stored["sched_switch"], stored["tasks"])
    again(trace, stored, duckdb.sql(f"select count(*) from {stored['loss'].sql}").fetchall()[0][0])


def written(trace, scratch):
    """An answer as a Parquet file, with each type and with NULLs."""
    statement = """select *, dur / 3 as third, dur * 0.5 as half, count(*) over () as n, sum(dur) over (order by ts, utid) as total,
        comm like '%a%' as has_a, to_timestamp_nanos(ts) as clock, cast(null as text) as nothing from thread_state order by ts, utid, dur"""
    file = scratch / "answer.of"
    subprocess.run([program, "sql", trace, statement, "--format", "parquet", "-o", file], stderr=subprocess.DEVNULL, check=True)
    ours = ask(trace, statement)[0]
    arrow = pq.ParquetFile(file).read()
    at = arrow.column_names.index("clock")
    # JSON has no times, and Python none of nanoseconds: these as text, and as numbers.
    check(f"{trace}: times of an answer", arrow["clock"].cast(pa.int64()).to_pylist(), arrow["ts"].to_pylist())
    check(f"{trace}: times of an answer in polars", pl.read_parquet(file)["clock"].cast(pl.Int64).to_list(), arrow["ts"].to_pylist())
    ours = [row[:at] + row[at + 1:] for row in ours]
    check(f"{trace}: an answer in pyarrow", ours, list(zip(*arrow.drop_columns(["clock"]).to_pydict().values())))
    check(f"{trace}: an answer in polars", ours, pl.read_parquet(file).drop("clock").rows())
    check(f"{trace}: an answer in DuckDB", ours, duckdb.sql(f"select * exclude (clock) from read_parquet('{file}')").fetchall())


for trace in traces:
    with tempfile.TemporaryDirectory() as scratch:
        of_trace(trace, Path(scratch) / "tables")
sys.exit(checks.finish())
