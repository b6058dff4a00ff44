"""Run by hand: `python -m unittest discover bench`. No engine is needed, only numpy."""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import sys
import tempfile
import unittest
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

import compare
import formula
import schedule
import stats
from protocol import WorkerFailed, WorkerProcess

FAKE = """
import sys, time; sys.path.insert(0, {here!r})
import protocol
answers = protocol.take_stdout()
class Engine:
    def describe(self): return {{"engine": "fake", "version": "1", "dtype": "f32", "threads": 2, "device": "cpu", "options": []}}
    def logits(self, batch, salt):
        print("noise on stdout")
        return [[{logit}, 1.0]] * batch
    def run_once(self, batch):
        if batch > 8: raise MemoryError("too large")
        time.sleep(0.002)
protocol.serve(Engine(), answers)
"""


def fake_worker(label: str, logit: str = "2.0") -> WorkerProcess:
    code = FAKE.format(here=str(Path(__file__).resolve().parent), logit=logit)
    return WorkerProcess(label, [sys.executable, "-c", code], dict(os.environ))


class ScriptedWorker:
    """Answers blocks with the given medians in turn, then with the last one."""

    def __init__(self, label: str, medians: list[float]) -> None:
        self.label = label
        self.medians = medians

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert request["cmd"] == "block"
        time_s = self.medians.pop(0) if len(self.medians) > 1 else self.medians[0]
        return {"first_s": 0.125, "times_s": [time_s] * 3, "cpu_s": 0.0}


class ScriptedMeter:
    """Stands in for LoadMeter: other processes' load in the blocks to come."""

    loads: list[float | None] = []

    def other_load(self, worker_cpu_s: float) -> float | None:
        return self.loads.pop(0) if self.loads else 0.0


class Statistics(unittest.TestCase):
    def test_percentiles_are_numpys(self) -> None:
        values = [0.0213, 0.0197, 0.0541, 0.0201, 0.0199, 0.0205, 0.0320, 0.0198]
        for p in (0, 10, 25, 50, 90, 99, 100):
            self.assertAlmostEqual(stats.percentile(values, p), float(np.percentile(values, p)), places=15)

    def test_interval_is_the_sign_tests(self) -> None:
        found = stats.median_interval(list(range(1, 13)))
        assert found
        self.assertEqual((found["median"], found["low"], found["high"]), (6.5, 3, 10))
        self.assertAlmostEqual(found["coverage"], 0.96142578125)
        self.assertIsNone(stats.median_interval([]))


class Formula(unittest.TestCase):
    def test_first_numbers(self) -> None:
        """The published figures of the formula."""
        np.testing.assert_allclose(formula.uniform("zoo", "input", 3), [0.65508914, 0.58392758, 0.63809049], atol=5e-9)

    def test_a_batch_begins_with_the_smaller_batch(self) -> None:
        one, two = (formula.images("zoo", n, (3, 4, 5)) for n in (1, 2))
        np.testing.assert_array_equal(one[0], two[0])

    def test_official_names(self) -> None:
        for timm, official in {
            "patch_embed.0.c.weight": "patch_embed.0.c.weight",
            "stages.0.blocks.1.conv.m.c.weight": "blocks1.1.conv.m.c.weight",
            "stages.1.downsample.1.m.pw1.c.weight": "blocks2.0.1.m.pw1.c.weight",
            "stages.1.downsample.2.se.fc1.bias": "blocks2.1.se.fc1.bias",
            "stages.2.downsample.4.m.pw2.bn.bias": "blocks3.2.1.m.pw2.bn.bias",
            "stages.2.blocks.0.mixer.m.qkv.c.weight": "blocks3.3.mixer.m.qkv.c.weight",
        }.items():
            self.assertEqual(formula.shvit_official_name(timm), official)


class Scheduling(unittest.TestCase):
    def run_cases(self, cases: list[schedule.Case], loads: list[float | None], rounds: int) -> str:
        ScriptedMeter.loads = loads
        with mock.patch.object(schedule, "LoadMeter", ScriptedMeter):
            return schedule.run(cases, schedule.Schedule(rounds=rounds, block_s=1.0), lambda _: None)

    def test_loaded_blocks_are_discarded_and_tried_again_in_their_round(self) -> None:
        slow, fast = (schedule.Case(ScriptedWorker(n, [t]), 4) for n, t in (("slow", 4.0), ("fast", 2.0)))
        # Round 0: slow, fast loaded, fast again; round 1: fast, slow loaded three times.
        self.assertEqual(self.run_cases([slow, fast], [0.0, 0.5, 0.0, 0.0, 1.0, 1.0, 1.0], rounds=2), "complete")
        self.assertEqual([(b.round, b.kept) for b in slow.blocks], [(0, True), (1, False), (1, False), (1, False)])
        self.assertEqual([(b.round, b.kept) for b in fast.blocks], [(0, False), (0, True), (1, True)])
        ratio = fast.speed_up(slow)
        assert ratio
        self.assertEqual((ratio["median"], ratio["rounds"]), (2.0, 1))
        report = slow.report()
        self.assertEqual((report["kept"], report["discarded"], report["stats"]["images_per_s"]), (1, 3, 1.0))
        self.assertTrue(any(w.startswith("3 of 4 blocks were discarded") for w in report["warnings"]))

    def test_a_busy_machine_gives_no_figure(self) -> None:
        case = schedule.Case(ScriptedWorker("x", [0.02]), 1)
        self.run_cases([case], [2.0] * 6, rounds=2)
        report = case.report()
        self.assertIsNone(report["stats"])
        self.assertIn("all 6 blocks were discarded", report["warnings"][0])

    def test_unknown_load_keeps_every_block(self) -> None:
        case = schedule.Case(ScriptedWorker("x", [0.02]), 1)
        self.run_cases([case], [None, None], rounds=2)
        self.assertEqual([b.kept for b in case.blocks], [True, True])

    def test_warm_up_lasts_until_times_settle(self) -> None:
        case = schedule.Case(ScriptedWorker("x", [0.8, 0.4, 0.3, 0.29]), 1)
        schedule.warm_up(case, schedule.Schedule())
        assert case.warm_up
        self.assertTrue(case.warm_up["settled"])
        self.assertEqual(case.warm_up["calls"], 4 * 4)  # four blocks of a first call and three

    def test_a_worker_that_fails_does_not_end_the_others(self) -> None:
        class Failing(ScriptedWorker):
            def ask(self, request: dict[str, Any]) -> dict[str, Any]:
                raise WorkerFailed("out of memory")

        good, bad = schedule.Case(ScriptedWorker("good", [0.02]), 1), schedule.Case(Failing("bad", [0.02]), 1)
        self.assertEqual(self.run_cases([good, bad], [], rounds=2), "complete")
        self.assertEqual((len(good.blocks), len(bad.blocks), bad.failure), (2, 0, "out of memory"))
        self.assertEqual(bad.report()["warnings"], ["it failed: out of memory"])

    def test_no_block_is_begun_after_the_time_limit(self) -> None:
        case = schedule.Case(ScriptedWorker("x", [0.02]), 1)
        with mock.patch.object(schedule, "LoadMeter", ScriptedMeter), \
                mock.patch("schedule.time.monotonic", side_effect=[0.0, 1.0, 2.0, 3.0, 11.0]):
            ended = schedule.run([case], schedule.Schedule(rounds=9, attempts=1, max_s=10.0), lambda _: None)
        self.assertEqual((ended, len(case.blocks)), ("time_limit", 3))

    def test_without_rounds_nothing_is_called(self) -> None:
        case = schedule.Case(ScriptedWorker("x", []), 1)
        self.assertEqual(self.run_cases([case], [], rounds=0), "complete")
        self.assertIsNone(case.report()["warm_up"])

    def test_ctrl_c_keeps_what_there_is(self) -> None:
        case = schedule.Case(ScriptedWorker("x", [0.02]), 1)
        asked = 0

        def interrupt(_: str) -> None:
            nonlocal asked
            asked += 1
            if asked == 4:
                raise KeyboardInterrupt

        ScriptedMeter.loads = []
        with mock.patch.object(schedule, "LoadMeter", ScriptedMeter):
            self.assertEqual(schedule.run([case], schedule.Schedule(rounds=9), interrupt), "stopped")
        self.assertEqual(len(case.blocks), 2)


class Processes(unittest.TestCase):
    def test_blocks_and_failures_cross_the_pipe(self) -> None:
        worker = fake_worker("fake")
        self.addCleanup(worker.close)
        answer = worker.ask({"cmd": "block", "batch": 1, "seconds": 0.01})
        self.assertGreaterEqual(len(answer["times_s"]), 1)
        self.assertGreaterEqual(sum(answer["times_s"]), 0.01)
        for request, expected in (
            ({"cmd": "block", "batch": 9, "seconds": 0.01}, "MemoryError: too large"),
            ({"cmd": "block", "batch": 1, "seconds": 1e9}, "0 to 60 s"),
            ({"cmd": "dance"}, "unknown cmd 'dance'"),
        ):
            with self.assertRaisesRegex(WorkerFailed, expected):
                worker.ask(request)
        self.assertEqual(worker.ask({"cmd": "logits", "batch": 2, "salt": "zoo"})["logits"], [[2.0, 1.0]] * 2)

    def test_a_worker_that_dies_leaves_its_last_words(self) -> None:
        worker = WorkerProcess("dead", [sys.executable, "-c", "raise SystemExit('no such engine')"], dict(os.environ))
        self.addCleanup(worker.close)
        with self.assertRaisesRegex(WorkerFailed, "status 1: no such engine"):
            worker.ask({"cmd": "describe"})

    def test_engines_that_differ_are_left_out(self) -> None:
        field = compare.Field()
        logits = {"near": "2.00001", "far": "2.1", "eager": "2.0", "nan": "float('nan')", "null": "None"}
        field.workers = [fake_worker(label, logit) for label, logit in logits.items()]
        self.addCleanup(field.close)
        field.agree([1, 2], argparse.Namespace(dtype="f32", tolerance=1e-4, patience=30, decides=False))
        self.assertEqual([w.label for w in field.workers], ["eager", "near"])
        self.assertIn("5.0e-02 at batch 1", field.left_out["far"])
        self.assertIn("nan", field.left_out["nan"])
        self.assertIn("nan", field.left_out["null"])
        self.assertAlmostEqual(field.agreement["near"], 5e-6)

    def test_a_whole_comparison(self) -> None:
        def command(engine: str, _: Any) -> list[str]:
            if engine == "zoo":
                return ["/no/such/zoo"]
            code = FAKE.format(here=str(Path(__file__).resolve().parent), logit="2.0")
            return [sys.executable, "-c", code.replace('"threads": 2', f'"threads": {3 if engine == "ort" else 2}')]

        out, json_file = io.StringIO(), Path(self.enterContext(tempfile.TemporaryDirectory())) / "r.json"
        arguments = ["compare.py", "m", "--engines", "zoo,eager,compile,ort", "--threads", "2", "--batch", "1,2",
                     "--rounds", "2", "--block", "0.02", "--max-other-load", "1000", "--weights", "none",
                     "--json", str(json_file)]
        with mock.patch.object(sys, "argv", arguments), mock.patch.object(compare, "command", command), \
                mock.patch.object(sys, "stdout", out), redirect_stderr(io.StringIO()):
            status = compare.main()
        text = out.getvalue()
        self.assertEqual(status, 1, text)
        self.assertIn("zoo: LEFT OUT: cannot start /no/such/zoo", text)
        self.assertIn("ort: LEFT OUT: threads is 3, 2 was asked", text)
        report = json.loads(json_file.read_text())
        self.assertEqual(report["schema"], "zoo.bench/1")
        self.assertEqual([(c["subject"], c["batch"], c["kept"]) for c in report["cases"]],
                         [("eager", 1, 2), ("compile", 1, 2), ("eager", 2, 2), ("compile", 2, 2)])
        self.assertTrue(all(math.isfinite(r["speed_up"]["median"]) for r in report["ratios"]))


if __name__ == "__main__":
    unittest.main()
