using System.Text;
using NUnit.Framework;
using Vmm.Serial;

namespace Vmm.Tests.Serial;

public class EscapeFilterTests
{
    [TestCase("abc", "abc", "")]
    [TestCase("\u0003\u001a\u001c", "\u0003\u001a\u001c", "", TestName = "{m}(Ctrl-C, Ctrl-Z and Ctrl-backslash are the guest's)")]
    [TestCase("x\u0001x", "x", "quit ", TestName = "{m}(x, Ctrl-A x)")]
    [TestCase("\u0001hb\u0001?", "b", "help help ", TestName = "{m}(Ctrl-A h, b, Ctrl-A ?)")]
    [TestCase("\u0001a-\u0001\u0001x", "\u0001-\u0001x", "", TestName = "{m}(Ctrl-A a, -, Ctrl-A Ctrl-A, x)")]
    [TestCase("1\u0001q2", "12", "", TestName = "{m}(1, Ctrl-A q, 2)")]
    [TestCase("1\u0001z2", "12", "stop ", TestName = "{m}(1, Ctrl-A z, 2)")]
    [TestCase("\u0001", "", "", TestName = "{m}(Ctrl-A)")]
    public void Filter_Keys_KeepsTheGuestsAndActsOnOurs(string typed, string kept, string actions)
    {
        foreach (int chunk in new[] { typed.Length, 1 })   // a sequence may arrive in pieces
        {
            string done = "";
            var result = new StringBuilder();
            var filter = new EscapeFilter(() => done += "quit ", () => done += "help ", () => done += "stop ");
            foreach (byte[] piece in Encoding.Latin1.GetBytes(typed).Chunk(chunk))
                result.Append(Encoding.Latin1.GetString(piece, 0, filter.Filter(piece)));
            Assert.That(result.ToString(), Is.EqualTo(kept));
            Assert.That(done, Is.EqualTo(actions));
        }
    }
}
