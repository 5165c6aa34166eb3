using System.Text;
using System.Text.RegularExpressions;
using NUnit.Framework;
using Vmm.Tests.Fakes;
using Vmm.Vhost.Native.Confinement;

namespace Vmm.Tests.Native.Confinement;

/// <summary>Compares the numbers with the kernel's headers, by compiling C assertions.</summary>
public partial class SystemCallNumberTests
{
    [Test]
    public void Numbers_AgainstKernelHeaders_AreTheSame()
    {
        var c = new StringBuilder("#include <asm/unistd_64.h>\n");
        foreach (SystemCallNumber call in Enum.GetValues<SystemCallNumber>())
        {
            string name = Upper().Replace($"{call}", "_$0").ToLowerInvariant();
            c.Append($"_Static_assert(__NR{name} == {(int)call}, \"{name}\");\n");
        }
        CCompiler.Check(c.ToString());
    }

    [GeneratedRegex("[A-Z]")]
    private static partial Regex Upper();
}
