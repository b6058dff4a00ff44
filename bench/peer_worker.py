"""One peer engine as a worker process: `python peer_worker.py --engine eager --model shvit_s1 --weights FILE`."""

from __future__ import annotations

import argparse
import os
import sys

import protocol


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", required=True, help="eager, compile, ort or openvino")
    parser.add_argument("--model", required=True, help="timm's name, or zoo's with --official")
    parser.add_argument("--weights", required=True, help="safetensors file in the model's names, or formula:SALT:GAIN for official code")
    parser.add_argument("--official", help="folder of official repositories to take the model from, instead of timm")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--dtype", choices=["f32", "tf32", "bf16"], default="f32")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--onnx", help="an ONNX file for ort and openvino, instead of torch's export")
    options = vars(parser.parse_args())

    answers = protocol.take_stdout()
    engine = options.pop("engine")
    if options["device"] == "cpu":
        # Some official code builds its constants on a GPU wherever it sees one.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    try:
        import peers

        peer = peers.make(engine, peers.Task(**options))
    except Exception as error:  # the last line of stderr is what the driver reports
        print(f"{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    protocol.serve(peer, answers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
