"""What a card does, by one command: `python -m timescope_lite.bench_gpu --minutes 9 --out DIR`.

It needs torch, numpy and safetensors, and nothing else. Every stage runs in a process of its own
(`stages.py`), so that an error on the card ends that stage alone; what it measured comes back line
by line (`record.py`) and is written into DIR/result.json after every stage.

    machine       which card, which numbers it computes in
    checks        the device paths; tests marked `gpu` call the same functions
    oracles       what must be equal is equal, in fp32, bf16 and fp16
    rates         copies, reloads, and whether a reload hides behind computing
    residency     keys and values on the card: the allocator beside our own counter
    steps         a training step, and its share of the card's matrix rate
    long_videos   an hour, and all that the clock has codes for
    training      the base model, for the time that is left; the next call goes on
    picture       the result as a picture, where matplotlib is installed
"""
