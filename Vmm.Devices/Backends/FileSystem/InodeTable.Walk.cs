using Vmm.Vhost.Native;

namespace Vmm.Devices.Backends.FileSystem;

/// <content>Many files opened by their names at once.</content>
internal sealed partial class InodeTable
{
    /// <summary>Looks at a file that is open by O_PATH.</summary>
    /// <param name="inode">The file that the guest knows.</param>
    /// <param name="path">What was opened.</param>
    internal delegate void FileVisitor(Inode inode, in HeldDescriptor path);

    // Looks at what a name leads to: nothing where there is an error. True if it is the file and the table is to have it open.
    private delegate bool NameVisitor(Inode inode, in HeldDescriptor path, int error);

    /// <summary>Holds many files one after the other, by their names, in any order. It takes as long as there are files and directories above them, whereas <see cref="Hold"/> looks up all names above a
    /// file. Those that it would refuse are left out.</summary>
    /// <param name="inodes">The files, each once.</param>
    /// <param name="visit">Is called without a lock.</param>
    public void HoldAll(IEnumerable<Inode> inodes, FileVisitor visit) => OpenByNames(inodes, (Inode inode, in HeldDescriptor path, int error) =>
    {
        if (error < 0 || (inode != Root && !IsSame(inode, in path)) || CheckReach(inode, in path) < 0)
            return false;
        visit(inode, in path);
        return true;
    });

    // Opens files by their names from the shared directory on. Each directory on the way is opened once, however many of the files are below it. It is closed when the last directory in it is open, which is the
    // one with most below: so there are no more open at once than the binary logarithm of their number.
    private void OpenByNames(IEnumerable<Inode> inodes, NameVisitor visit)
    {
        // Names may change meanwhile: what counts is how they are now.
        (Step root, Step nowhere) = PlanWalk(inodes);
        var next = new Stack<Step>();
        try
        {
            root.Path = Root.Path;
            nowhere.Error = -Errnos.Estale;
            using (HeldDescriptor held = root.Path!.Hold())
            {
                if (root.IsWanted)
                    visit(Root, in held, 0);
            }
            GoInto(root, next);
            GoInto(nowhere, next);
            while (next.TryPop(out Step? step))
                Take(step, next, visit);
        }
        finally
        {
            while (next.TryPop(out Step? step))
                step.Above!.Leave(this);
        }
    }

    private void Take(Step step, Stack<Step> next, NameVisitor visit)
    {
        Step above = step.Above!;
        try
        {
            step.Error = above.Error;
            if (step.Error == 0)
                Open(step, above.Path!);
        }
        finally
        {
            above.Leave(this);
        }
        try
        {
            if (step.IsWanted)
            {
                using HeldDescriptor held = step.Path is { } path ? path.Hold() : default;
                step.IsKept = visit(step.Inode, in held, step.Error);
            }
        }
        finally
        {
            GoInto(step, next);
        }
    }

    private void Open(Step step, FileDescriptor directory)
    {
        int number = OpenBeneath(directory, step.Name);
        if (number is -Errnos.Emfile or -Errnos.Enfile && Shrink())
            number = OpenBeneath(directory, step.Name);
        if (number < 0)
            step.Error = ErrorOfName(number);
        else
            step.Path = new FileDescriptor(number);
    }

    // What is in a directory comes next, and that with most below last.
    private void GoInto(Step step, Stack<Step> next)
    {
        step.Left = 1;
        foreach (Step below in step.Below)
        {
            step.Left++;
            next.Push(below);
        }
        step.Leave(this);
    }

    // The ways of all the files; and apart from them those that do not begin at the shared directory.
    private (Step Root, Step Nowhere) PlanWalk(IEnumerable<Inode> inodes)
    {
        Step root = new(Root), nowhere = new(Root);
        var steps = new Dictionary<Inode, Step> { [Root] = root };
        lock (_lock)
        {
            foreach (Inode inode in inodes)
            {
                Step? below = null;
                for (Inode? each = inode; each is not null; each = each.Parent)
                {
                    bool isPlanned = steps.TryGetValue(each, out Step? step);
                    step ??= steps[each] = new Step(each);
                    step.IsWanted |= each == inode;
                    if (below is not null)
                        step.Add(below);
                    below = isPlanned ? null : step;
                    if (isPlanned)
                        break;
                }
                if (below is not null)
                    nowhere.Add(below);
            }
        }
        // From above to below, then back.
        List<Step> all = [root, nowhere];
        for (int i = 0; i < all.Count; i++)
            all.AddRange(all[i].Below);
        for (int i = all.Count - 1; i >= 0; i--)
            all[i].Weigh();
        return (root, nowhere);
    }

    // A file on the way, or at its end.
    private sealed class Step(Inode inode)
    {
        private List<Step>? _below;
        private int _weight = 1;

        public Inode Inode { get; } = inode;

        public byte[] Name { get; } = inode.Name;

        public bool IsWanted { get; set; }

        public Step? Above { get; private set; }

        public IReadOnlyList<Step> Below => _below ?? (IReadOnlyList<Step>)[];

        public int Error { get; set; }

        public FileDescriptor? Path { get; set; }

        public bool IsKept { get; set; }

        // How many below have not been opened.
        public int Left { get; set; }

        public void Add(Step step)
        {
            (_below ??= []).Add(step);
            step.Above = this;
        }

        // After all below.
        public void Weigh()
        {
            if (_below is null)
                return;
            for (int i = 0; i < _below.Count; i++)
            {
                _weight += _below[i]._weight;
                if (_below[i]._weight > _below[0]._weight)
                    (_below[0], _below[i]) = (_below[i], _below[0]);
            }
        }

        // One below is open, or will not be.
        public void Leave(InodeTable table)
        {
            if (--Left > 0 || Path is not { } path)
                return;
            Path = null;
            if (Inode == table.Root || (IsKept && table.TryHave(Inode, path)))
                return;
            path.Dispose();
        }
    }

    // Whether the descriptor is one of the table's from now on.
    private bool TryHave(Inode inode, FileDescriptor path)
    {
        ReleasedDescriptors released = default;
        bool isHad;
        lock (_lock)
        {
            isHad = inode.Path is null && _byId.GetValueOrDefault(inode.Id) == inode;
            if (isHad)
                _open.Add(inode, path, ref released);
        }
        released.Close();
        return isHad;
    }
}
