"""Pack a data set into one .npz file, to be opened in a second: a folder of pictures is then decoded and resized only once.

    python -m ep.datasets FROM TO.npz

FROM: whatever --data of the main job takes. The file gets the images as they were read, their labels, the names of the classes.
"""

from ..errors import EPError
from ..train import commandline as cli
from . import arrays, banner, load


def main():
    parser = cli.Parser(prog="python -m ep.datasets", description=__doc__, formatter_class=cli.Formatter)
    parser.add_argument("source", type=cli.path, metavar="FROM", help="a folder or file of images")
    parser.add_argument("file", type=cli.path, metavar="TO.npz", help="a file that does not exist yet")
    args = parser.parse_args()
    if args.file.suffix != ".npz" or args.file.exists():
        raise EPError(f"{args.file} is no new .npz file: name one that does not exist yet, such as pictures.npz")
    dataset = load("auto", args.source, download=False)
    print(banner(dataset))
    arrays.save(dataset, args.file)
    print(f"packed into {args.file} ({args.file.stat().st_size / 1e6:.0f} MB): --data {args.file}")


if __name__ == "__main__":
    cli.run(main)
