namespace Vmm.Guest;

/// <summary>What a module wants without using its symbols (modprobe.d(5), "softdep").</summary>
internal static class SoftDependency
{
    /// <summary>Those to be loaded before it: the words behind each <c>pre:</c>.</summary>
    /// <param name="words">As in <c>pre: a b post: c</c>.</param>
    public static List<string> Before(ReadOnlySpan<string> words)
    {
        List<string> before = [];
        bool isBefore = false;
        foreach (string word in words)
        {
            if (word.EndsWith(':'))
                isBefore = word == "pre:";
            else if (isBefore)
                before.Add(word);
        }
        return before;
    }
}
