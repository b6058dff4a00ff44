"""Tests of the official peers' table and of campaigns: `python -m unittest discover bench`. Only numpy is needed."""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import types
import unittest
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

import compare
import families
import formula
import load
import official
import stand_ins
import tables
from protocol import WorkerFailed, WorkerProcess

HERE = Path(__file__).resolve().parent
FAKE = """
import sys; sys.path.insert(0, {here!r})
import protocol
answers = protocol.take_stdout()
class Engine:
    def describe(self): return {{}}
    def logits(self, batch, salt, dtype=None): return [[{wide} if dtype else {logit}, 1.0]] * batch
    def run_once(self, batch): import time; time.sleep(60)
protocol.serve(Engine(), answers)
"""


def worker(label: str, logit: float, wide: float = 0.0) -> WorkerProcess:
    return WorkerProcess(label, [sys.executable, "-c", FAKE.format(here=str(HERE), logit=logit, wide=wide)], dict(os.environ))


class Agreement(unittest.TestCase):
    def agree(self, dtype: str, decides: bool) -> compare.Field:
        field = compare.Field()
        # In its wider format the base says 2.0; it is 4 % off itself.
        field.workers = [worker("near", 2.1), worker("eager", 2.08, wide=2.0), worker("far", 2.3)]
        self.addCleanup(field.close)
        field.agree([1, 2], argparse.Namespace(dtype=dtype, tolerance=0.01, patience=30, decides=decides))
        return field

    def test_where_decisions_flip_all_are_held_to_the_wider_format(self) -> None:
        field = self.agree("f32", decides=True)
        self.assertEqual([w.label for w in field.workers], ["eager", "near"])
        assert field.reference
        self.assertEqual((field.reference["dtype"], field.held_to()), ("f64", "eager's in f64"))
        self.assertAlmostEqual(field.reference["base_difference"], 0.04)
        self.assertAlmostEqual(field.agreement["near"], 0.05)
        self.assertIn("eager's in f64 by 1.5e-01 at batch 1; 1e-01 is allowed", field.left_out["far"])

    def test_bf16_is_always_held_to_the_wider_format(self) -> None:
        field = self.agree("bf16", decides=False)
        assert field.reference
        self.assertEqual(field.reference["dtype"], "f32")

    def test_without_decisions_the_tolerance_is_all_there_is(self) -> None:
        field = self.agree("f32", decides=False)
        self.assertEqual([w.label for w in field.workers], ["eager", "near"])  # 2.1 is 0.96 % from 2.08
        self.assertIsNone(field.reference)

    def test_the_slack_has_an_end(self) -> None:
        field = compare.Field()
        field.workers = [worker("eager", 3.0, wide=2.0)]
        self.addCleanup(field.close)
        field.workers.append(worker("wild", 3.2))
        field.agree([1], argparse.Namespace(dtype="bf16", tolerance=0.01, patience=30, decides=False))
        self.assertIn("5e-01 is allowed", field.left_out["wild"])


class Patience(unittest.TestCase):
    def test_a_slow_worker_is_ended(self) -> None:
        slow = worker("slow", 1.0)
        self.addCleanup(slow.close)
        self.assertEqual(slow.ask({"cmd": "logits", "batch": 1, "salt": "zoo"}, 30.0), {"logits": [[1.0, 1.0]]})
        began = time.monotonic()
        with self.assertRaisesRegex(WorkerFailed, "no answer to block within 0 s"):
            slow.ask({"cmd": "block", "batch": 1, "seconds": 1}, 0.2)
        self.assertLess(time.monotonic() - began, 30)
        with self.assertRaisesRegex(WorkerFailed, "ended with status -9"):
            slow.ask({"cmd": "describe"})
        slow.close()  # twice is allowed


class Load(unittest.TestCase):
    STAT = "cpu  10 0 20 500 0 0 0 0 0 0\ncpu0 4 0 5 250 0 0 0 0 0 0\ncpu1 6 0 15 250 0 0 0 0 0 0\nintr 5\n"

    def test_only_the_processors_in_use_count(self) -> None:
        ticks = os.sysconf("SC_CLK_TCK")
        for cpus, expected in ((None, 30), ({0}, 9), ({0, 1}, 30), ({1}, 21), ({7}, 30)):
            with mock.patch("load.open", mock.mock_open(read_data=self.STAT), create=True):
                self.assertEqual(load.machine_cpu_s(cpus), expected / ticks, cpus)


class OfficialTable(unittest.TestCase):
    def test_every_model_belongs_to_a_known_repository(self) -> None:
        for name, model in official.OFFICIAL.items():
            self.assertIn(model.root.split("/")[0], official.REPOSITORIES, name)
            self.assertGreater(model.gain, 0, name)
        self.assertLessEqual(official.STAND_INS.keys(), official.REPOSITORIES.keys())
        self.assertLessEqual({p for names in official.STAND_INS.values() for p in names}, stand_ins.STAND_INS.keys())

    def test_the_records_name_models_of_the_table(self) -> None:
        """Names, gains and shapes are the records' (those in this checkout)."""
        found = 0
        for path in (HERE.parent / "tests" / "goldens").glob("*.json"):
            record = json.loads(path.read_text(encoding="utf-8"))
            name = official.zoo_name(path.stem)
            if name not in official.OFFICIAL or "input_shape" not in record:
                continue
            found += 1
            model = official.OFFICIAL[name]
            self.assertEqual(model.gain, record["gain"], name)
            self.assertEqual(list(model.shape), record["input_shape"][1:], name)
            repository, commit = official.REPOSITORIES[model.root.split("/")[0]]
            self.assertEqual((repository, commit), (record["source"]["repo"], record["source"]["commit"]), name)
        self.assertGreaterEqual(found, 25)

    def test_sparsifiner_prunes_as_the_training_script_does(self) -> None:
        options = official.OFFICIAL["sparsifiner-s-tok70"].options
        self.assertEqual([i for i, here in enumerate(options["token_pruning_loc_indicator"]) if here], [3, 6, 9])
        self.assertEqual(options["token_keep_rate_list"][:4], [1.0, 1.0, 1.0, 0.7])
        self.assertAlmostEqual(options["token_keep_rate_list"][11], 0.343)
        self.assertNotIn("token_keep_rate_list", official.OFFICIAL["sparsifiner-lvvit-s"].options)

    def test_a_missing_checkout_is_named(self) -> None:
        with self.assertRaisesRegex(FileNotFoundError, "rayleizhu/BiFormer at 1697bbb"):
            official.build("biformer-t", "/nowhere")

    def test_a_script_gives_its_definitions_and_does_not_run(self) -> None:
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        (folder / "net_of_the_test.py").write_text("class Base:\n    width = 3\n")
        (folder / "train.py").write_text(
            "import no_such_package\nfrom torch.utils.data import DataLoader\nfrom net_of_the_test import Base\n"
            "data = no_such_package.download()\nclass Net(Base):\n    def __init__(self, classes): self.classes = classes\n"
            "Net(0).train()\n")
        for root in ("ninformer", "activator"):
            (folder / root).mkdir()
            for script in ("train.py", "net_of_the_test.py"):
                (folder / root / script).write_text((folder / script).read_text())
        table = {"net": official.Official("ninformer", "train.py", "Net", 1.0, {"classes": 7})}
        with mock.patch.dict(official.OFFICIAL, table), mock.patch.object(sys, "path", list(sys.path)):
            net, replaced = official.build("net", str(folder))
        self.assertEqual((net.classes, net.width, replaced), (7, 3, []))


class StandIns(unittest.TestCase):
    def test_only_missing_packages_are_replaced(self) -> None:
        table = {"json": ("json", {"loads": None}), "no_such": ("no_such.deep.part", {"f": lambda: 5})}
        with mock.patch.dict(stand_ins.STAND_INS, table), mock.patch.dict(sys.modules):
            self.assertEqual(stand_ins.install(["json", "no_such"]), ["no_such"])
            from no_such.deep import part

            self.assertEqual(part.f(), 5)
            self.assertIsNotNone(json.loads("1"))

    def test_bare_packages_do_not_run_their_init(self) -> None:
        root = Path(self.enterContext(tempfile.TemporaryDirectory()))
        for package in ("heavy", "heavy/inner"):
            (root / package).mkdir()
            (root / package / "__init__.py").write_text("raise ImportError('everything')\n")
        (root / "heavy" / "inner" / "leaf.py").write_text("value = 9\n")
        with mock.patch.dict(sys.modules):
            stand_ins.bare_packages(root, "heavy")
            from heavy.inner import leaf

            self.assertEqual(leaf.value, 9)


@unittest.skipUnless(importlib.util.find_spec("torch"), "torch is not installed")
class WithTorch(unittest.TestCase):
    def test_na2d_av_is_a_window_shifted_at_the_border(self) -> None:
        import torch

        torch.manual_seed(0)
        b, g, h, w, c, k = 2, 3, 6, 7, 4, 5
        attention, value = torch.rand(b, g, h, w, k * k).double(), torch.rand(b, g, h, w, c).double()
        expected = torch.zeros(b, g, h, w, c).double()
        for i in range(h):
            for j in range(w):
                top, left = min(max(i - k // 2, 0), h - k), min(max(j - k // 2, 0), w - k)
                window = value[:, :, top:top + k, left:left + k].reshape(b, g, k * k, c)
                expected[:, :, i, j] = (attention[:, :, i, j, :, None] * window).sum(2)
        torch.testing.assert_close(stand_ins.na2d_av(attention, value, k), expected)

    def test_parameters_and_statistics_are_filled_and_other_buffers_kept(self) -> None:
        import torch

        class Net(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.norm = torch.nn.BatchNorm1d(3)
                self.head = torch.nn.Linear(3, 2)
                self.threshold = torch.nn.Parameter(torch.tensor(1.0), requires_grad=False)
                self.register_buffer("table", torch.full((2,), 7.0))

            def forward(self, x: Any) -> dict[str, Any]:
                return {"x": self.head(self.norm(x)), "features": x}

        net = Net()
        official.fill(net, "zoo", 0.7)
        for name in ("norm.weight", "norm.running_mean", "norm.running_var", "head.weight", "threshold"):
            tensor = net.state_dict()[name]
            np.testing.assert_array_equal(tensor.numpy(), formula.weight("zoo", 0.7, name, tensor.shape), name)
        self.assertEqual(net.state_dict()["table"].tolist(), [7.0, 7.0])
        self.assertEqual(tuple(official.logits_only(net).eval()(torch.zeros(4, 3)).shape), (4, 2))


REPORT = {
    "schema": "zoo.bench/1", "ended": "complete", "machine": {"cpu": "a processor", "cores": 16},
    "subjects": [{"name": "eager", "device": "cpu", "options": ["official code someone/Net 12345678", "stand-in for natten"]}],
    "cases": [{"subject": s, "batch": 1, "median_of_blocks_s": t, "kept": 8, "discarded": d, "blocks": [1]}
              for s, t, d in (("eager", 0.2, 0), ("zoo", 0.1, 9), ("compile", None, 0))],
    "comparison": {"left_out": {"ort": "no such operator"}},
}


class Tables(unittest.TestCase):
    def test_a_line_has_times_and_ratios(self) -> None:
        engines = ["eager", "compile", "zoo"]
        self.assertEqual(tables.row("net", 1, "f32", REPORT, engines), "| net | 1 | f32 | 200.0 | - | 100.0 | 2.00 | - |")
        self.assertEqual(tables.row("net", 8, "f32", REPORT, engines), "| net | 8 | f32 | - | - | - | - | - |")
        header = tables.header(engines).splitlines()
        self.assertEqual(header[0].count("|"), header[1].count("|"))
        self.assertIn("| zoo / eager | zoo / compile |", header[0])

    def test_what_a_reader_must_know(self) -> None:
        self.assertEqual(tables.notes("net", "f32", REPORT), [
            "net f32: ort left out: no such operator",
            "net f32: zoo, batch 1: 9 of 17 blocks discarded beside other load",
        ])
        self.assertEqual(tables.peer(REPORT), "official code someone/Net 12345678, stand-in for natten")


class Campaigns(unittest.TestCase):
    def run_campaign(self, *arguments: str, compared: Any = None) -> tuple[int, str, str, list[str]]:
        """Status, output, errors, and the models that were compared."""
        models: list[str] = []

        def stand_in(job: families.Job, *_: Any) -> dict[str, Any] | None:
            models.append(f"{job.model} {job.dtype}")
            report: dict[str, Any] | None = compared(job) if compared else json.loads(json.dumps(REPORT))
            return report

        out, errors = io.StringIO(), io.StringIO()
        with mock.patch.object(sys, "argv", ["families.py", *arguments]), mock.patch.object(families, "compare", stand_in), \
                redirect_stdout(out), redirect_stderr(errors):
            status = families.main()
        return status, out.getvalue(), errors.getvalue(), models

    def test_what_is_done_is_not_run_again(self) -> None:
        results = str(Path(self.enterContext(tempfile.TemporaryDirectory())) / "r.jsonl")
        first = self.run_campaign("deit-s", "--out", results, "--batch", "1")
        self.assertEqual((first[0], first[3]), (0, ["deit-s f32", "deit-s bf16"]))
        with open(results, "a", encoding="utf-8") as torn:
            torn.write('{"job": {"model": "sh')
        again = self.run_campaign("deit-s", "shvit-s1", "--out", results, "--batch", "1", "--dtypes", "f32")
        self.assertEqual((again[0], again[3]), (0, ["shvit-s1 f32"]))
        self.assertIn("a line that is no result is skipped", again[2])
        self.assertEqual(again[1].count("| deit-s | 1 | f32 | 200.0 |"), 1)
        other = self.run_campaign("deit-s", "--done", results, "--batch", "1", "--dtypes", "f32", "--threads", "8")
        self.assertEqual(other[3], ["deit-s f32"])

    def test_no_comparison_is_begun_when_the_budget_is_over(self) -> None:
        status, out, errors, models = self.run_campaign("deit-s", "--budget", "10")
        self.assertEqual((status, models), (1, []))
        self.assertIn("2 of 2 comparisons have no result yet", errors)

    def test_a_comparison_without_a_report_does_not_end_the_campaign(self) -> None:
        status, out, errors, models = self.run_campaign(
            "deit-s", "--batch", "1", compared=lambda job: None if job.dtype == "f32" else json.loads(json.dumps(REPORT)))
        self.assertEqual((status, len(models)), (1, 2))
        self.assertIn("deit-s f32: no report", errors)
        self.assertIn("| deit-s | 1 | bf16 |", out)

    def test_an_unfinished_report_is_run_again(self) -> None:
        results = str(Path(self.enterContext(tempfile.TemporaryDirectory())) / "r.jsonl")
        self.run_campaign("deit-s", "--out", results, "--dtypes", "f32", compared=lambda _: REPORT | {"ended": "stopped"})
        self.assertEqual(self.run_campaign("deit-s", "--out", results, "--dtypes", "f32")[3], ["deit-s f32"])
        self.assertEqual(self.run_campaign("deit-s", "--out", results, "--dtypes", "f32")[3], [])

    def test_the_table_runs_nothing(self) -> None:
        results = str(Path(self.enterContext(tempfile.TemporaryDirectory())) / "r.jsonl")
        self.run_campaign("deit-s", "--out", results, "--batch", "1")
        status, out, _, models = self.run_campaign("--table", "--done", results)
        self.assertEqual((status, models), (0, []))
        self.assertIn("| deit-s | 1 | bf16 | 200.0 |", out)
        self.assertIn("Machine: a processor, 16 logical cores.", out)

    def test_engines_that_cannot_have_the_model_are_not_asked(self) -> None:
        args = types.SimpleNamespace(engines=families.ENGINES, official=None)
        job = families.Job("karat-tiny-g3b", "bf16", "cpu", "1", 4)
        self.assertEqual(families.engines(job, args), ["zoo", "zoo:openvino"])  # type: ignore[arg-type]
        biformer = families.Job("biformer-t", "f32", "cpu", "1", 4)
        self.assertNotIn("eager", families.engines(biformer, args))  # type: ignore[arg-type]
        args.official = "/official"
        self.assertIn("eager", families.engines(biformer, args))  # type: ignore[arg-type]

    def test_a_comparison_that_outlasts_the_budget_is_stopped(self) -> None:
        """The real `compare` function around a command that would go on."""
        args = types.SimpleNamespace()
        code = "import json, signal, sys, time\n" \
               "def stop(*_): open(sys.argv[1], 'w').write(json.dumps({'cases': [{'blocks': 1, 'batch': 2}]})); sys.exit(130)\n" \
               "signal.signal(signal.SIGTERM, stop); time.sleep(60)"
        began = time.monotonic()
        with mock.patch.object(families, "command", lambda job, args, left, path: [sys.executable, "-c", code, path]):
            report = families.compare(None, args, began + 3 * families.GRACE_S + 2, set())  # type: ignore[arg-type]
        self.assertEqual(report, {"cases": [{"batch": 2}]})
        self.assertLess(time.monotonic() - began, 30)

    def test_a_stopped_campaign_keeps_what_it_has(self) -> None:
        """SIGTERM, as from `timeout`, reaches the comparison, whose report is still kept; no other is begun."""
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        comparison = folder / "compare.py"
        comparison.write_text(
            "import json, signal, sys, time\n"
            f"def stop(*_): open(sys.argv[1], 'w').write({json.dumps(json.dumps(REPORT | {'ended': 'stopped'}))}); sys.exit(130)\n"
            f"signal.signal(signal.SIGTERM, stop); open({str(folder / 'started')!r}, 'w'); time.sleep(60)\n")
        program = (f"import sys; sys.path.insert(0, {str(HERE)!r}); import families\n"
                   f"families.command = lambda job, args, left, path: [sys.executable, {str(comparison)!r}, path]\n"
                   f"sys.argv = ['families.py', 'deit-s', '--batch', '1', '--out', {str(folder / 'r.jsonl')!r}]; sys.exit(families.main())")
        campaign = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while not (folder / "started").exists() and campaign.poll() is None:
            time.sleep(0.05)
        campaign.terminate()
        out, errors = campaign.communicate(timeout=60)
        self.assertEqual(campaign.returncode, 1, errors)
        self.assertIn("| deit-s | 1 | f32 | 200.0 |", out)
        self.assertIn("deit-s f32: ended early (stopped)", out)
        self.assertIn("1 of 2 comparisons have no result yet", errors)
        self.assertEqual(len((folder / "r.jsonl").read_text().splitlines()), 1)

    def test_lanes_have_cores_of_their_own(self) -> None:
        pairs = {cpu: {cpu % 4, cpu % 4 + 4} for cpu in range(8)}
        with mock.patch.object(families, "_siblings", pairs.get), \
                mock.patch.object(os, "sched_getaffinity", lambda _: set(range(8)), create=True):
            self.assertEqual(families.cpu_sets(2, 2), [{0, 1}, {2, 3}])
            self.assertEqual(families.cpu_sets(1, 64), [None])
            with redirect_stderr(io.StringIO()) as errors:
                self.assertEqual(families.cpu_sets(3, 2), [{0, 1}, {2, 3}])
                self.assertEqual(families.cpu_sets(2, 3), [None])
            self.assertIn("4 cores are enough for 2 lanes of 2 threads, not 3", errors.getvalue())


if __name__ == "__main__":
    unittest.main()
