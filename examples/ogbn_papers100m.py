"""GraphSAGE on ogbn-papers100M, citations made undirected: 3 layers of 256, sampled 10,15,20, out of core.

    python examples/ogbn_papers100m.py dataset          ten seeds; --seeds, --epochs, --work, --memory

`dataset` is the folder that ogb keeps its downloads in; what is not there, ogb downloads.
The features alone are 57 GB in the Store; `gnnsys plan STORE --fanouts 10,15,20` says what the pack takes before it is
made. Try `--seeds 1 --epochs 1` first.
"""

from _leaderboard import Entry, run

if __name__ == "__main__":
    run(
        Entry(
            dataset="ogbn-papers100M",
            model="sage",
            hidden=256,
            dropout=0.2,
            fanouts=(10, 15, 20),
            batch_size=1024,
            epochs=50,
            lr=0.003,
            undirected=True,
            memory="32GiB",
        )
    )
